"""Strict pydantic sections, number types with a range, and messages for faults."""

from __future__ import annotations

import difflib
import inspect
import json
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from disco_zoo.errors import did_you_mean, one_line

Probability = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]
EmaMomentum = Annotated[float, Field(ge=0, lt=1)]


Interpolation = Literal["bilinear", "bicubic"]


class Section(BaseModel):
    """Strict: no unknown keys; 1 is not True and "3" is not 3, but YAML's lists may fill tuples."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def explain(error: ValidationError, model: type[BaseModel], prefix: tuple[str, ...] = ()) -> list[str]:
    """Pydantic's faults of `model` as messages; `prefix` is where the model hangs in the recipe."""
    messages = []
    for fault in error.errors():
        location = [str(part) for part in (*prefix, *fault["loc"])]
        path = ".".join(location)
        if fault["type"] == "extra_forbidden":
            known = _keys_at(model, location[len(prefix) : -1])
            hint = did_you_mean(location[-1], known) or _by_another_name(location[-1], known)
            hint = hint or f" Known: {', '.join(known)}."
            messages.append(f"unknown key '{path}'.{hint}")
        elif fault["type"] == "missing":
            messages.append(f"missing key '{path}'")
        elif fault["type"] == "json_invalid":
            messages += [f"{key}: is not UTF-8. Rename it" for key in _not_utf8(json.loads(fault["input"]), *location)]
        else:
            value = json.dumps(fault["input"], ensure_ascii=False)
            allowed = re.findall(r"'([^']*)'", fault.get("ctx", {}).get("expected", ""))
            hint = did_you_mean(str(fault["input"]), allowed)
            hint = hint or _usual(model, location, len(prefix), fault["type"])
            messages.append(f"{path}: {fault['msg'].lower()}, not {value[:60]}" + (f".{hint}" if hint else ""))
    return [one_line(message) for message in messages]


def _not_utf8(value: Any, *path: str) -> Iterator[str]:
    """Keys of text in plain values that has no UTF-8, such as the name of a file as a terminal hands it on."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _not_utf8(key, *path, key)
            yield from _not_utf8(inner, *path, key)
    elif isinstance(value, list):
        for inner in value:
            yield from _not_utf8(inner, *path)
    elif isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        yield ".".join(path)


# What other programs call a key, or people in full.
_OTHER_NAMES = {
    "learning_rate": ("lr", "base_lr"),
    "num_epochs": ("epochs",),
    "wd": ("weight_decay",),
    "img_size": ("image_size",),
    "temp": ("temperature",),
    "num_steps": ("steps",),
}


def _by_another_name(key: str, known: Sequence[str]) -> str:
    """As `did_you_mean`, for a key that is near to another name of a known one; "" for none."""
    for other in difflib.get_close_matches(key, _OTHER_NAMES, n=1, cutoff=0.75):
        for name in _OTHER_NAMES[other]:
            if name in known:
                return f" Did you mean '{name}'?"
    return ""


def _usual(model: type[BaseModel], location: list[str], skipped: int, kind: str) -> str:
    """For a number out of range: what to type for the default, where there is one."""
    if not kind.startswith(("greater_than", "less_than")) or len(location) != 2:
        return ""
    path = location[skipped:]
    default = _section_at(model, path[:-1]).model_fields[path[-1]].default
    return f" Type: --set {'.'.join(location)}={default}" if type(default) in (int, float) else ""


def _keys_at(model: type[BaseModel], path: list[str]) -> list[str]:
    """Keys that a section of the schema knows, to suggest the nearest."""
    return list(_section_at(model, path).model_fields)


def _section_at(model: type[BaseModel], path: list[str]) -> type[BaseModel]:
    for part in path:
        annotation = model.model_fields[part].annotation
        candidates = [annotation, *typing.get_args(annotation)]
        model = next(c for c in candidates if inspect.isclass(c) and issubclass(c, BaseModel))
    return model


def section_of(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A section of unchecked values; empty where it is missing or no section."""
    section = values.get(name)
    return section if isinstance(section, dict) else {}
