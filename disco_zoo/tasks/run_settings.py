"""Settings of detection and segmentation: presets that `--set key=value` changes, and their file in a run folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from disco_zoo.core.schema import Section, explain
from disco_zoo.core.yaml_io import read_value
from disco_zoo.errors import BadRecipe, BadRunFolder, UnknownName, did_you_mean

Settings = TypeVar("Settings", bound=Section)


def preset_named(presets: Mapping[str, Settings], name: str) -> Settings:
    """One of the presets.

    Raises:
        UnknownName: there is none of this name.
    """
    if name not in presets:
        raise UnknownName(f"there is no preset '{name}'.{did_you_mean(name, presets)} (one of {', '.join(presets)})")
    return presets[name]


def changed(settings: Settings, overrides: Iterable[str]) -> tuple[Settings, set[str]]:
    """Settings with `key=value` applied, and the keys that were given.

    Raises:
        BadRecipe: all unknown keys and unfit values together.
    """
    given: dict[str, Any] = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise BadRecipe(f"'{override}' changes nothing: write --set key=value, for instance --set steps=500")
        given[key] = read_value(value)
    model = type(settings)
    try:
        values = json.dumps({**settings.model_dump(mode="json"), **given}, default=str)
        return model.model_validate_json(values), set(given)
    except ValidationError as error:
        raise BadRecipe("; ".join(explain(error, model))) from error


SETTINGS = "settings.json"


def read_settings(folder: Path, name: str) -> dict[str, Any]:
    """A JSON file of a run folder; empty where there is none.

    Raises:
        BadRunFolder: it is no JSON.
    """
    try:
        values: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except ValueError as error:
        raise BadRunFolder(f"{folder / name} is damaged. Choose another --out") from error
    return values
