"""The folder of a fine-tuning: who may write into it, and with which settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from disco_zoo.checkpoint import write_atomically
from disco_zoo.errors import BadRunFolder
from disco_zoo.finetune.classifier_folder import MODEL_FOLDER
from disco_zoo.finetune.settings import FinetuneSettings
from disco_zoo.recipe_yaml import read_yaml

SETTINGS, FACTS = "finetune.yaml", "run.json"


class FinetuneFolder:
    """A claimed run folder.

    Args:
        path: created when absent.
        settings: resolved; written as `finetune.yaml`.
        resume: go on with what the folder holds. Without it the folder must hold no run.

    Raises:
        BadRunFolder: in use by another process, holding a run of other settings, or not writable.
    """

    def __init__(self, path: Path, settings: FinetuneSettings, *, resume: bool) -> None:
        self.path = path
        self._lock = FileLock(path / ".lock")
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
    def model(self) -> Path:
        return self.path / MODEL_FOLDER

    @property
    def figures(self) -> Path:
        folder = self.path / "figures"
        folder.mkdir(exist_ok=True)
        return folder

    def write_json(self, name: str, values: dict[str, Any]) -> None:
        write_json(self.path / name, values)

    def write_text(self, name: str, text: str) -> None:
        write_atomically(self.path / name, lambda partial: partial.write_text(text, encoding="utf-8"))

    def read_json(self, name: str) -> dict[str, Any]:
        return read_facts(self.path, name)

    def close(self) -> None:
        self._lock.release()

    def _claim(self, settings: FinetuneSettings, resume: bool) -> None:
        stored = self.path / SETTINGS
        if resume and stored.is_file():
            former = read_yaml(stored.read_text(encoding="utf-8"))[0]
            odd = difference(former if isinstance(former, dict) else {}, settings.as_dict())
            if odd:
                raise BadRunFolder(
                    f"{self.path} holds a run of other settings ({odd}). Choose another --out, or repeat the command "
                    "that started it"
                )
        elif resume:
            raise BadRunFolder(f"{self.path} holds no run to resume. Repeat the command without --resume")
        elif self.checkpoint.is_file() or (self.path / FACTS).is_file():
            raise BadRunFolder(f"{self.path} already holds a run. Add --resume to go on, or choose another --out")
        self.write_text(SETTINGS, settings.as_yaml())


def difference(former: dict[str, Any], settings: dict[str, Any]) -> str | None:
    """The first setting that decides the weights and differs, for people."""
    for key, value in settings.items():
        if key != "checkpoint_every_steps" and former.get(key) != value:
            return f"{key}: {former.get(key)} there, {value} here"
    return None


def read_facts(path: Path, name: str = FACTS) -> dict[str, Any]:
    """What a run wrote of itself; empty where it has not finished."""
    file = path / name
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def write_json(path: Path, values: dict[str, Any]) -> None:
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))
