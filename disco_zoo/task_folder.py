"""The folder of a run that is no recipe's: detection, segmentation. One process at a time, one set of settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from disco_zoo.checkpoint import write_atomically
from disco_zoo.errors import BadRunFolder

SETTINGS = "settings.json"


class TaskFolder:
    """A claimed run folder.

    Args:
        path: created when absent.
        settings: all that decides the outcome; written as `settings.json`.
        resume: go on with what the folder holds. Without it the folder must hold no run.

    Raises:
        BadRunFolder: in use by another process, holding a run of other settings, or not writable.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
        self.path = path
        self._lock = FileLock(path / ".lock")
        if resume and not (path / SETTINGS).is_file():
            raise BadRunFolder(f"{path} holds no run to resume. Repeat the command without --resume")
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise BadRunFolder(f"{path} is in use by another run. Choose another folder with --out") from error
        except OSError as error:
            raise BadRunFolder(f"cannot write to {path}: {error.strerror}. Choose another folder with --out") from error
        try:
            self._claim(settings, resume)
        except BaseException:
            self.close()
            raise

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint.pt"

    @property
    def figures(self) -> Path:
        folder = self.path / "figures"
        folder.mkdir(exist_ok=True)
        return folder

    def write_text(self, name: str, text: str) -> None:
        write_atomically(self.path / name, lambda partial: partial.write_text(text, encoding="utf-8"))

    def write_json(self, name: str, values: Mapping[str, Any]) -> None:
        self.write_text(name, json.dumps(values, indent=2, ensure_ascii=False) + "\n")

    def read_json(self, name: str) -> dict[str, Any]:
        return read_settings(self.path, name)

    def close(self) -> None:
        self._lock.release()

    def _claim(self, settings: Mapping[str, Any], resume: bool) -> None:
        plain = json.loads(json.dumps(settings))  # tuples become lists, as in the file
        if not resume and self.checkpoint.is_file():
            raise BadRunFolder(f"{self.path} already holds a run. Add --resume to go on, or choose another --out")
        former = self.read_json(SETTINGS) if resume else plain
        for key in {**former, **plain}:
            if former.get(key) != plain.get(key):
                raise BadRunFolder(
                    f"{self.path} holds a run of other settings ({key}: {former.get(key)} there, {plain.get(key)} "
                    "here). Choose another --out, or repeat the command that started it"
                )
        self.write_json(SETTINGS, plain)


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
