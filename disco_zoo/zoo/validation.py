"""Checks of the catalog that its schema cannot state: duplicates, references, what each weights source needs.

They work on the raw YAML, so that these faults are reported together with the schema's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import yaml
from pydantic import ValidationError

from disco_zoo.core import yaml_io
from disco_zoo.errors import did_you_mean

SECTIONS = ("datasets", "teachers", "architectures", "checkpoints")
# Fragments that rows reuse through YAML anchors; not part of the zoo itself.
FRAGMENTS = "shared"
NEEDED_BY_SOURCE = {
    "bundled": ("file", "sha256"),
    "hub": ("repo", "revision", "file", "sha256"),
    "official": ("file",),
    "none": (),
}


def read_yaml(text: str) -> tuple[Any, list[str]]:
    """Parse catalog text; every row learns its own name.

    Returns:
        The parsed value and the faults found while parsing: bad syntax, duplicate keys.
    """
    try:
        raw, faults = yaml_io.read_yaml(text)
    except yaml.YAMLError as error:
        return None, [f"not valid YAML: {' '.join(str(error).split())}"]
    if isinstance(raw, dict):
        raw.pop(FRAGMENTS, None)
        for section in SECTIONS:
            faults += _name_rows(raw, section)
    return raw, faults


def schema_faults(error: ValidationError, known_keys: Iterable[str]) -> list[str]:
    """Turn pydantic's errors into lines `path: message`, with the nearest known key for an unknown one."""
    lines = []
    for fault in error.errors(include_url=False):
        path = ".".join(str(part) for part in fault["loc"]) or "catalog"
        if fault["type"] == "extra_forbidden":
            lines.append(f"{path}: unknown key.{did_you_mean(str(fault['loc'][-1]), known_keys)}")
        elif fault["type"] == "missing":
            lines.append(f"{path}: missing")
        else:
            given = repr(fault["input"])
            lines.append(f"{path}: {fault['msg']}, not {given if len(given) < 80 else given[:77] + '...'}")
    return lines


def cross_faults(raw: Any) -> list[str]:
    """Faults between the catalog's parts; tolerates anything that the schema already rejects."""
    if not isinstance(raw, dict):
        return []
    sections = {name: raw[name] if isinstance(raw.get(name), dict) else {} for name in SECTIONS}
    faults = []
    for name, architecture in sections["architectures"].items():
        default = architecture.get("default") if isinstance(architecture, dict) else None
        if isinstance(default, str) and f"{name}.{default}" not in sections["checkpoints"]:
            faults.append(f"architectures.{name}.default: there is no checkpoint {name}.{default}")
        no_network = isinstance(architecture, dict) and architecture.get("native", "") is None
        if no_network and architecture.get("registered", True):
            faults.append(f"architectures.{name}.registered: must be false, timm has no such network")
    for name, row in sections["datasets"].items():
        if isinstance(row, dict):
            faults += [f"datasets.{name}{fault}" for fault in _dataset_faults(row, sections["datasets"])]
    for name, row in sections["teachers"].items():
        if isinstance(row, dict):
            faults += [f"teachers.{name}{fault}" for fault in _teacher_faults(str(name), row, sections)]
    for name, row in sections["checkpoints"].items():
        if isinstance(row, dict):
            faults += [f"checkpoints.{name}{fault}" for fault in _row_faults(str(name), row, sections)]
    return faults


def _dataset_faults(row: dict[str, Any], datasets: dict[str, Any]) -> Iterator[str]:
    measured_on = row.get("measured_on")
    if isinstance(measured_on, str) and measured_on not in datasets:
        yield f".measured_on: '{measured_on}' is not in datasets.{did_you_mean(measured_on, datasets)}"
    elif isinstance(measured_on, str) and not (datasets[measured_on] or {}).get("num_test"):
        yield f".measured_on: {measured_on} has no test images"
    elif measured_on is None and row.get("num_test", 0) is None:
        yield ".measured_on: missing, without test images of its own the data set needs one that measures"


def _row_faults(name: str, row: dict[str, Any], sections: dict[str, dict[str, Any]]) -> Iterator[str]:
    architecture, dot, tag = name.partition(".")
    if not (dot and tag) or "." in tag:
        yield ": the name must be architecture.tag, with one dot"
    if architecture not in sections["architectures"]:
        hint = did_you_mean(architecture, sections["architectures"])
        yield f": unknown architecture '{architecture}'.{hint}"
    for key, section in (("data", "datasets"), ("teacher", "teachers"), ("start_from", "checkpoints")):
        value = row.get(key)
        if isinstance(value, str) and value not in sections[section]:
            yield f".{key}: '{value}' is not in {section}.{did_you_mean(value, sections[section])}"
    yield from _weights_faults(row.get("weights"))
    if row.get("start") == "checkpoint" and row.get("start_from") is None:
        yield ".start_from: missing, start is checkpoint"
    if row.get("start") not in ("checkpoint", "inherit") and row.get("start_from") is not None:
        yield ".start_from: stands where start is checkpoint or inherit, and nowhere else"
    if (row.get("variant") is None) != (row.get("variant_reason") is None):
        yield ".variant_reason: a variant and its reason stand together, or neither"
    measured = row.get("measured")
    for index, figure in enumerate(measured if isinstance(measured, list) else []):
        if isinstance(figure, dict):
            values, seeds = figure.get("values"), figure.get("seeds")
            if isinstance(values, list) and isinstance(seeds, list) and len(values) != len(seeds):
                yield f".measured.{index}: {len(values)} values but {len(seeds)} seeds"


def _teacher_faults(name: str, row: dict[str, Any], sections: dict[str, dict[str, Any]]) -> Iterator[str]:
    if "." in name:
        yield ": a teacher's name has no dot; with one it would read as a checkpoint"
    data = row.get("data")
    if isinstance(data, str) and data not in sections["datasets"]:
        yield f".data: '{data}' is not in datasets.{did_you_mean(data, sections['datasets'])}"
    weights = row.get("weights")
    yield from _weights_faults(weights)
    if isinstance(weights, dict) and weights.get("source") in ("bundled", "hub") and row.get("network") is None:
        yield ".network: missing, weights need the network that they fit"


def _weights_faults(weights: Any) -> Iterator[str]:
    if not isinstance(weights, dict):
        return
    source = weights.get("source")
    needed = NEEDED_BY_SOURCE.get(source, ()) if isinstance(source, str) else ()
    for key in needed:
        if weights.get(key) is None:
            yield f".weights.{key}: missing, {source} weights need it"


def _name_rows(raw: dict[str, Any], section: str) -> list[str]:
    rows = raw.get(section)
    if not isinstance(rows, dict):
        return []
    faults = []
    for name, row in rows.items():
        if isinstance(row, dict):
            if "name" in row:
                faults.append(f"{section}.{name}.name: unknown key; the row's key is its name")
            rows[name] = {**row, "name": name}
    return faults
