"""Converts results of `disco-zoo evaluate --out` to `measured:` entries of the catalog."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml
from pydantic import ValidationError

from disco_zoo.errors import BadData
from disco_zoo.zoo.catalog import Measured


def measured_entries(results: Iterable[dict[str, Any]]) -> list[Measured]:
    """One entry a subject and metric, in the order of the results; the seeds of one measurement become one entry.

    Raises:
        BadData: figures of two models, or of two protocols under one metric, or none that a card has a place for.
    """
    found: dict[tuple[str, str], list[Measured]] = {}
    models: dict[str, str] = {}
    for result in results:
        for entry in _entries(result):
            found.setdefault((entry.subject, entry.metric), []).append(entry)
            model = str(result["model"]["name"])
            if models.setdefault(entry.subject, model) != model:
                raise BadData(f"{models[entry.subject]} and {model} are two models. A card is of one: give its files")
    if not found:
        raise BadData("There is nothing for a card in these files: random weights and looks (--steps) have no place")
    return [_joined(entries) for entries in found.values()]


def as_yaml(entries: Iterable[Measured]) -> str:
    """The entries as text that can be pasted under a row of the catalog."""
    rows = [entry.model_dump() for entry in entries]
    text = yaml.safe_dump({"measured": rows}, sort_keys=False, allow_unicode=True, width=1000, default_flow_style=None)
    return str(text)


def _entries(result: dict[str, Any]) -> list[Measured]:
    try:
        return [Measured.model_validate(row) for row in result["measured"]]
    except (KeyError, TypeError, ValidationError) as error:
        raise BadData("These files hold no `measured` rows: make them again with this version of disco-zoo") from error


def _joined(entries: list[Measured]) -> Measured:
    """The seeds of one measurement."""
    first = entries[0]
    protocols = list(dict.fromkeys(entry.protocol for entry in entries))
    if len(protocols) > 1:
        raise BadData(
            f"A card has one place for {first.metric}, and these are two protocols: {' and '.join(protocols[:2])}. "
            "Give the files of one"
        )
    seeds = [seed for entry in entries for seed in entry.seeds]
    values = [value for entry in entries for value in entry.values]
    return first.model_copy(update={"seeds": seeds, "values": values, "date": max(entry.date for entry in entries)})
