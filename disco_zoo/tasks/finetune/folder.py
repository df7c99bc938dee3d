"""The settings file in a run folder of a fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from disco_zoo.core.yaml_io import read_yaml
from disco_zoo.tasks.finetune.settings import FinetuneSettings
from disco_zoo.training.run_folder import CHECKPOINT, RunSettings

SETTINGS, FACTS = "finetune.yaml", "run.json"


def finetune_settings(settings: FinetuneSettings) -> RunSettings:
    """Resolved settings, which are written as `finetune.yaml`."""

    def other_than(stored: Path) -> str | None:
        former = read_yaml(stored.read_text(encoding="utf-8"))[0]
        return difference(former if isinstance(former, dict) else {}, settings.as_dict())

    return RunSettings(SETTINGS, settings.as_yaml(), other_than, made_by_a_run=(CHECKPOINT, FACTS))


def difference(former: dict[str, Any], settings: dict[str, Any]) -> str | None:
    """The first setting that influences the weights and differs, as text; None where there is none."""
    for key, value in settings.items():
        if key != "checkpoint_every_steps" and former.get(key) != value:
            return f"{key}: {former.get(key)} there, {value} here"
    return None
