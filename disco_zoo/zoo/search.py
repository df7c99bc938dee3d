"""Which rows of the catalog a search means."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Mapping
from typing import TypeVar

from disco_zoo.errors import UnknownName, did_you_mean
from disco_zoo.zoo.licences import is_commercial, spdx_of
from disco_zoo.zoo.schema import SOURCES, Checkpoint, Teacher

INSTALLED = "installed"
WEIGHTS_STATES = (*SOURCES, INSTALLED)

Row = TypeVar("Row", Checkpoint, Teacher)


def matching_rows(
    rows: Collection[Row],
    pattern: str | None,
    wanted: Mapping[str, str | None],
    known: Mapping[str, Collection[str]],
    *,
    installed: Collection[str],
    names: Collection[str],
) -> list[Row]:
    """The rows that fit the pattern and have every value wanted.

    Args:
        pattern: A part of the name, or the whole of it with wildcards; None for any.
        wanted: Attribute -> its value, None for any. "weights" is a source, or "installed"; "licence" an SPDX
            identifier, lower case; "commercial" is "yes".
        known: Attribute -> the values that exist.
        installed: Names of what the user has installed.
        names: What a mistaken pattern may have meant.

    Raises:
        UnknownName: A value does not exist, or nothing is left.
    """
    asked = {key: value for key, value in wanted.items() if value is not None}
    for key, value in asked.items():
        if value not in known[key]:
            hint = did_you_mean(value, known[key]) or f" There are: {', '.join(known[key])}."
            raise UnknownName(f"There is no {key} '{value}' in the zoo.{hint} Type: disco-zoo list")
    found = [
        row
        for row in rows
        if _fits(row.name, pattern) and all(_has(row, key, value, installed) for key, value in asked.items())
    ]
    if found or not (asked or pattern):
        return found
    conditions = ", ".join(f"{key} {value}" for key, value in asked.items())
    if pattern is None:
        raise UnknownName(f"No model has {conditions}. Type: disco-zoo list")
    if any(_fits(row.name, pattern) for row in rows):
        raise UnknownName(f"No model matches '{pattern}' and has {conditions}. Type: disco-zoo list {pattern}")
    raise UnknownName(f"No model matches '{pattern}'.{did_you_mean(pattern, names)} Type: disco-zoo list")


def _fits(name: str, pattern: str | None) -> bool:
    if pattern is None:
        return True
    return fnmatch.fnmatchcase(name, pattern if any(c in pattern for c in "*?[") else f"*{pattern}*")


def _has(row: Checkpoint | Teacher, key: str, value: str, installed: Collection[str]) -> bool:
    if key == "weights":
        return row.name in installed if value == INSTALLED else row.weights.source == value
    if key == "licence":
        return spdx_of(row)["weights"].lower() == value
    if key == "commercial":
        return is_commercial(row)
    return bool(getattr(row, key) == value)
