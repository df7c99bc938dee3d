"""YAML as recipes use it: no key twice, and 1e-4 is a number although YAML 1.1 calls it text."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

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


for _class in (_Loader, _FastLoader, _Dumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT_NUMBER, list("-+0123456789"))


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
    finally:
        loader.dispose()


def read_value(text: str) -> Any:
    """Parse one value as YAML; text that is not YAML stays text."""
    try:
        return read_yaml(text)[0]
    except yaml.YAMLError:
        return text


def dump_yaml(values: dict[str, Any], *, a_line_each: bool = False) -> str:
    """Text that `read_yaml` reads as exactly `values`, in order; innermost sections in braces, or a line a key."""
    flow = False if a_line_each else None
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=flow, width=110)


def as_text(value: Any) -> str:
    """A value as `read_value` reads it, without spaces that a shell would split: `null`, `[0.229,0.224,0.225]`."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
