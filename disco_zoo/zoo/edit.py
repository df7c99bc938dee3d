"""Change one row's `weights:` in the catalog's text and nothing else: comments, anchors and order stay.

A YAML library that reads and writes would lose the comments, so the parser only says where the value stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from disco_zoo.errors import BadCatalog
from disco_zoo.zoo.catalog import Catalog, load_catalog
from disco_zoo.zoo.schema import Weights

KEY = "weights"
SECTIONS = ("checkpoints", "teachers")
ALIAS = "!alias"


def rewrite_weights(text: str, name: str, weights: Mapping[str, Any]) -> str:
    """Catalog text in which the row `name` has `weights`.

    The value may stand inline, inline over several lines, as a block, as an alias, or come from a merged
    fragment (`<<`); comments inside a replaced value move above it.

    Args:
        text: the catalog, valid.
        name: of a checkpoint or teacher.
        weights: the new entry, in the order in which to write it.

    Raises:
        BadCatalog: there is no such row, its form cannot be edited (its weights carry an anchor that others use),
            or the new entry breaks the schema.
    """
    former = load_catalog(text)
    row = _row_node(text, name)
    newline = "\r\n" if "\r\n" in text else "\n"
    changed = _replaced(text, row, weights, newline)
    try:
        current = load_catalog(changed)
    except BadCatalog as error:
        raise BadCatalog(f"The weights of {name} cannot be rewritten: {_last_line(error)}") from error
    if _without(former, name) != _without(current, name) or not _has(current, name, weights):
        raise BadCatalog(
            f"The weights of {name} cannot be rewritten without changing other rows. Write its `weights:` out, "
            "without an anchor or alias, and try again"
        )
    return changed


def weights_block(name: str, weights: Mapping[str, Any]) -> str:
    """The row's new entry as YAML, to be pasted by hand."""
    return f"checkpoints:\n  {name}:\n    {KEY}:\n      {_flow(weights, indent=6)}\n"


class _Places(yaml.SafeLoader):
    """Composes nodes that say where they stand: an alias is a scalar of its own, not what it stands for."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.get_event()
            return yaml.ScalarNode(ALIAS, event.anchor, event.start_mark, event.end_mark)
        return super().compose_node(parent, index)


def _row_node(text: str, name: str) -> yaml.MappingNode:
    root = yaml.compose(text, Loader=_Places)
    for section in SECTIONS:
        rows = _value(root, section)
        for key, row in rows.value if isinstance(rows, yaml.MappingNode) else ():
            if key.value == name and isinstance(row, yaml.MappingNode):
                return row
    raise BadCatalog(f"The catalog has no row {name} of its own. Write it out, then try again")


def _value(mapping: yaml.Node | None, key: str) -> yaml.Node | None:
    pairs = mapping.value if isinstance(mapping, yaml.MappingNode) else []
    return next((value for name, value in pairs if name.value == key), None)


def _replaced(text: str, row: yaml.MappingNode, weights: Mapping[str, Any], newline: str) -> str:
    first_key = row.value[0][0]
    pair = next(((key, value) for key, value in row.value if key.value == KEY), None)
    if row.flow_style:
        if pair is None:
            return _spliced(text, first_key.start_mark.index, first_key.start_mark.index, f"{KEY}: {_flow(weights)}, ")
        return _spliced(text, *_span(text, *pair), f" {_flow(weights)}")
    indent = first_key.start_mark.column
    entry = newline + " " * (indent + 2) + _flow(weights, indent=indent + 2, newline=newline)
    if pair is None:  # the weights come from a fragment; a key of the row's own comes before them
        at = first_key.start_mark.index
        return _spliced(text, at, at, f"{KEY}:{entry}{newline}{' ' * indent}")
    start, end = _span(text, *pair)
    comments = "".join(f"{comment}{newline}{' ' * indent}" for comment in _comments(text, start, end, pair[1]))
    key_start = pair[0].start_mark.index
    return _spliced(text, key_start, end, f"{comments}{KEY}:{entry}")


def _spliced(text: str, start: int, end: int, new: str) -> str:
    return text[:start] + new + text[end:]


def _span(text: str, key: yaml.Node, value: yaml.Node) -> tuple[int, int]:
    """From behind the key's colon to the end of its value."""
    start = text.index(":", key.end_mark.index) + 1
    end = _end(value)
    return start, start + len(text[start:end].rstrip())  # folded text ends behind its line


def _end(node: yaml.Node) -> int:
    """Where a value ends; a block's own mark stands before whatever follows its trailing comments."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.index)


def _comments(text: str, start: int, end: int, value: yaml.Node) -> Iterator[str]:
    """Comments inside a value: whatever follows a # between its scalars."""
    at = start
    for scalar in [*_scalars(value), None]:
        stop = scalar.start_mark.index if scalar else end
        yield from (found.group().rstrip() for found in re.finditer(r"#[^\r\n]*", text[at:stop]))
        at = scalar.end_mark.index if scalar else end


def _scalars(node: yaml.Node) -> Iterator[yaml.ScalarNode]:
    if isinstance(node, yaml.ScalarNode):
        yield node
        return
    for item in node.value:
        for child in item if isinstance(item, tuple) else (item,):
            yield from _scalars(child)


def _flow(weights: Mapping[str, Any], indent: int | None = None, newline: str = "\n") -> str:
    """`{key: value, ...}`: on one line, or (with `indent`) with each hash on a line of its own."""
    parts = [f"{key}: {_scalar(value)}" for key, value in weights.items()]
    if indent is None:
        return "{" + ", ".join(parts) + "}"
    lines, margin = [""], newline + " " * (indent + 1)
    for key, part in zip(weights, parts, strict=True):
        if key in ("revision", "sha256") and lines[-1]:
            lines.append("")
        lines[-1] += (", " if lines[-1] else "") + part
    return "{" + f",{margin}".join(lines) + "}"


def _scalar(value: Any) -> str:
    """YAML decides about quotes: a hash of digits alone would be read as a number."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("\n").removesuffix("\n...")


def _without(catalog: Catalog, name: str) -> dict[str, Any]:
    values = catalog.model_dump()
    for section in SECTIONS:
        values[section].get(name, {}).pop(KEY, None)
    return values


def _has(catalog: Catalog, name: str, weights: Mapping[str, Any]) -> bool:
    row = catalog.checkpoints.get(name) or catalog.teachers[name]
    return row.weights == Weights.model_validate(dict(weights))


def _last_line(error: BadCatalog) -> str:
    return str(error).splitlines()[-1].strip()
