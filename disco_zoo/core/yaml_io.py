"""YAML as recipes use it: no key twice, 1e-4 is a number although YAML 1.1 calls it text, and 010 or 1:30 is none."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from disco_zoo.errors import BadRecipe, first_line, shown

_TAG = "tag:yaml.org,2002:"
# YAML 1.1 also reads 010 as 8, 1:30 as 90 and 2024-1-5 as a date: here they are text, which numbers' keys refuse.
_INTEGER = re.compile(r"^[-+]?(?:0|[1-9][0-9]*(?:_[0-9]+)*|0b[01]+|0x[0-9a-fA-F]+)$")
_FLOAT = re.compile(
    r"^(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
_EXPONENT_NUMBER = re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$")


class _NotesDuplicates(yaml.constructor.SafeConstructor):
    """Notes keys that appear twice, of which YAML would silently keep the last."""

    def __init__(self, text: str) -> None:
        super().__init__(text)  # type: ignore[call-arg]
        self.duplicates: list[str] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in seen:
                self.duplicates.append(f"key '{key}' appears twice (line {key_node.start_mark.line + 1})")
            seen.add(key)
        return {str(key): value for key, value in super().construct_mapping(node, deep=deep).items()}


class _Loader(_NotesDuplicates, yaml.SafeLoader):
    pass


# Libyaml's parser, where PyYAML was built with it, is ten times as fast: 0.3 s of each command that reads the catalog.
class _FastLoader(_NotesDuplicates, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    pass


class _Dumper(yaml.SafeDumper):
    """Puts quotes around text that `_Loader` would read as a number."""


for _class in (_Loader, _FastLoader):
    _class.yaml_implicit_resolvers = {
        first: [known for known in resolvers if known[0] not in (f"{_TAG}int", f"{_TAG}float", f"{_TAG}timestamp")]
        for first, resolvers in _class.yaml_implicit_resolvers.items()
    }
    _class.add_implicit_resolver(f"{_TAG}int", _INTEGER, list("-+0123456789"))
    _class.add_implicit_resolver(f"{_TAG}float", _FLOAT, list("-+.0123456789"))
for _each in (_Loader, _FastLoader, _Dumper):
    _each.add_implicit_resolver(f"{_TAG}float", _EXPONENT_NUMBER, list("-+0123456789"))


def read_yaml(text: str) -> tuple[Any, list[str]]:
    """Read a document: its value, and a message for each key that appears twice.

    Raises:
        yaml.YAMLError: the text is no YAML.
    """
    try:
        return _read(_FastLoader(text))
    except (yaml.YAMLError, UnicodeError):
        return _read(_Loader(text))  # says what is wrong in its own words, whichever parsers there are


def _read(loader: Any) -> tuple[Any, list[str]]:
    try:
        return loader.get_single_data(), loader.duplicates
    # What PyYAML's constructors raise for a value that does not fit its own tag, such as !!timestamp x.
    except (ValueError, AttributeError, LookupError, TypeError, RecursionError) as error:
        raise yaml.YAMLError(f"a value does not fit its tag: {first_line(error)}") from error
    finally:
        loader.dispose()


_COMMENT = re.compile(r"(?:^|\s)#")
_OPENING = ("'", '"', "[", "{")


def read_value(text: str) -> Any:
    """Parse one value as YAML; text that is not YAML stays text, and so does what YAML takes for a comment.

    Raises:
        BadRecipe: a key stands in it twice.
    """
    text = text.strip()
    if _COMMENT.search(text) and not text.startswith(_OPENING):
        return text
    try:
        value, faults = read_yaml(text)
    except yaml.YAMLError:
        return text
    if faults:
        raise BadRecipe(f"{shown(text)}: {faults[0]}")
    return value


def dump_yaml(values: dict[str, Any], *, a_line_each: bool = False) -> str:
    """Text that `read_yaml` reads as exactly `values`, in order; innermost sections in braces, or a line a key."""
    flow = False if a_line_each else None
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=flow, width=110)


def as_text(value: Any) -> str:
    """A value as `read_value` reads it, without spaces that a shell would split: `null`, `[0.229,0.224,0.225]`."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
