"""Small fine-tunings for the tests: settings, classifiers and runs in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tiny_runs import toy_parquet

from disco_zoo.models.classifier_dir import Classifier
from disco_zoo.tasks.finetune.run import LabeledData, finetune_into, finetune_settings, open_labeled, training_split
from disco_zoo.tasks.finetune.settings import FinetuneSettings
from disco_zoo.tasks.finetune.start import build_start
from disco_zoo.tasks.finetune.task import FinetuneTask
from disco_zoo.training.run import RunOptions
from disco_zoo.training.run_folder import RunFolder
from disco_zoo.training.trainer import Trainer


def toy_settings(model: str = "test_efficientnet", **changes: Any) -> FinetuneSettings:
    """Random weights at 32 px; three steps an epoch on toy images."""
    values: dict[str, Any] = {"untrained": True, "image_size": 32, "batch_size": 8, "epochs": 2, "val_fraction": 0.0}
    return FinetuneSettings(model=model, **{**values, **changes})


def toy_data(folder: Path, **options: Any) -> LabeledData:
    return open_labeled(str(toy_parquet(folder, **options)))


def run_finetune(
    settings: FinetuneSettings,
    data: LabeledData,
    path: Path,
    *,
    steps: int | None = None,
    resume: bool = False,
    workers: int = 0,
) -> dict[str, Any]:
    return finetune_into(
        settings, data, path, RunOptions(workers=workers, resume=resume, max_steps=steps, command="toy")
    )


def make_trainer(
    settings: FinetuneSettings, data: LabeledData, path: Path, *, resume: bool = False, workers: int = 0
) -> Trainer:
    """A trainer on toy data, not yet started; its folder is released at once."""
    train, held_out = training_split(settings, data)
    settings = settings.resolved(len(train))
    folder = RunFolder(path, finetune_settings(settings), resume=resume)
    folder.close()
    classifier = build_start(settings, data.names).classifier
    return Trainer(FinetuneTask(classifier, train, held_out, settings, workers=workers), folder)


def train(
    settings: FinetuneSettings,
    data: LabeledData,
    path: Path,
    *,
    steps: int | None = None,
    resume: bool = False,
    workers: int = 0,
) -> Trainer:
    """The training alone, without scores and pictures."""
    trainer = make_trainer(settings, data, path, resume=resume, workers=workers)
    trainer.train(resume=resume, max_steps=steps)
    return trainer


def checkpoint_of(path: Path) -> dict[str, Any]:
    """All that a resume rests on, without the time it took."""
    state: dict[str, Any] = torch.load(path / "checkpoint.pt", weights_only=True)
    for name in ("seconds", "data_wait_seconds"):
        state["position"].pop(name)
    return state


def task_of(trainer: Trainer) -> FinetuneTask:
    assert isinstance(trainer.task, FinetuneTask)
    return trainer.task


def tensors_of(classifier: Classifier) -> dict[str, torch.Tensor]:
    return {key: value.detach().clone() for key, value in classifier.network.state_dict().items()}
