"""The folder of a run that is no recipe's: detection, segmentation. One process at a time, one set of settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from disco_zoo.core.claimed_dir import ClaimedFolder, holds_a_run
from disco_zoo.data.summary import lines_of
from disco_zoo.errors import BadRunFolder

SETTINGS = "settings.json"


class TaskFolder(ClaimedFolder):
    """A claimed run folder.

    Args:
        path: created when absent.
        settings: all that decides the outcome; written as `settings.json`.
        resume: go on with what the folder holds. Without it the folder must hold no run.

    Raises:
        BadRunFolder: in use by another process, holding a run of other settings, or not writable.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
        super().__init__(path)
        if resume and not (path / SETTINGS).is_file():
            raise BadRunFolder(f"{path} holds no run to resume. Repeat the command without --resume")
        self._acquire_if(lambda: self._claim(settings, resume))

    def read_json(self, name: str) -> dict[str, Any]:
        return read_settings(self.path, name)

    def _claim(self, settings: Mapping[str, Any], resume: bool) -> None:
        plain = json.loads(json.dumps(settings))  # tuples become lists, as in the file
        if not resume and self.checkpoint.is_file():
            raise holds_a_run(self.path)
        former = self.read_json(SETTINGS) if resume else plain
        for key in {**former, **plain}:
            if former.get(key) != plain.get(key):
                raise BadRunFolder(
                    f"{self.path} holds a run of other settings ({key}: {former.get(key)} there, {plain.get(key)} "
                    "here). Choose another --out, or repeat the command that started it"
                )
        self.write_json(SETTINGS, plain)


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
