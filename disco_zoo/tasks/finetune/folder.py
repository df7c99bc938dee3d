"""The folder of a fine-tuning: who may write into it, and with which settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from disco_zoo.core.claimed_dir import ClaimedFolder, holds_a_run
from disco_zoo.core.yaml_io import read_yaml
from disco_zoo.errors import BadRunFolder
from disco_zoo.models.classifier_dir import MODEL_FOLDER
from disco_zoo.tasks.finetune.settings import FinetuneSettings

SETTINGS, FACTS = "finetune.yaml", "run.json"


class FinetuneFolder(ClaimedFolder):
    """A claimed run folder.

    Args:
        path: created when absent.
        settings: resolved; written as `finetune.yaml`.
        resume: go on with what the folder holds. Without it the folder must hold no run.

    Raises:
        BadRunFolder: in use by another process, holding a run of other settings, or not writable.
    """

    def __init__(self, path: Path, settings: FinetuneSettings, *, resume: bool) -> None:
        super().__init__(path)
        self._acquire_if(lambda: self._claim(settings, resume))

    @property
    def model(self) -> Path:
        return self.path / MODEL_FOLDER

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
            raise holds_a_run(self.path)
        self.write_text(SETTINGS, settings.as_yaml())


def difference(former: dict[str, Any], settings: dict[str, Any]) -> str | None:
    """The first setting that decides the weights and differs, for people."""
    for key, value in settings.items():
        if key != "checkpoint_every_steps" and former.get(key) != value:
            return f"{key}: {former.get(key)} there, {value} here"
    return None
