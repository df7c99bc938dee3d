"""The settings file in a run folder of detection or segmentation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from disco_zoo.data.summary import lines_of
from disco_zoo.errors import BadRunFolder
from disco_zoo.training.run_folder import RunSettings

SETTINGS = "settings.json"


def task_settings(values: Mapping[str, Any]) -> RunSettings:
    """Settings that are written as `settings.json`."""
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    plain = json.loads(text)  # tuples become lists, as in the file

    def difference(stored: Path) -> str | None:
        former = read_settings(stored.parent, stored.name)
        for key in {**former, **plain}:
            if former.get(key) != plain.get(key):
                return f"{key}: {former.get(key)} there, {plain.get(key)} here"
        return None

    return RunSettings(SETTINGS, text, difference)


def look_lines(facts: Mapping[str, Any], split: str) -> list[str]:
    """Lines of a report on what the images of a split are, from run.json; none of runs of before it said so."""
    look = facts.get("look", {}).get(split)
    return [f"  - {line}" for line in lines_of(look)] if look else []


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
