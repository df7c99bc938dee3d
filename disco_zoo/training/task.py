"""What a `Trainer` trains: all in which one training differs from another; its position and its log."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from disco_zoo.config.recipe import Recipe
from disco_zoo.core.console import StepProgress
from disco_zoo.training.metrics import MetricLogger


@dataclass
class Position:
    """How far a training is; all of it goes into the checkpoint.

    Attributes:
        step: optimizer steps taken.
        seconds: of training, without evaluation, over all resumes.
        data_wait_seconds: of these, spent waiting for a batch.
        unreadable: index -> what was wrong, of the images that could not be read.
    """

    step: int = 0
    seconds: float = 0.0
    data_wait_seconds: float = 0.0
    unreadable: dict[int, str] = field(default_factory=dict)

    @property
    def data_wait_share(self) -> float:
        # Of a few steps it may come out above 1: an accelerator's own clock tells late of what was waited before.
        return min(1.0, self.data_wait_seconds / max(self.seconds, 1e-9))

    def images_per_s(self, images_per_step: float) -> float:
        return self.step * images_per_step / max(self.seconds, 1e-9)

    def since(self, earlier: Position) -> Position:
        """Steps and seconds from an earlier position to this one."""
        return Position(
            self.step - earlier.step,
            self.seconds - earlier.seconds,
            self.data_wait_seconds - earlier.data_wait_seconds,
        )


def total_steps(recipe: Recipe, num_images: int) -> int:
    return recipe.optim.epochs * recipe.optim.steps_per_epoch(num_images)


class RunLog:
    """Writes records; beside the progress bar stand the figures of the last step and of the last evaluations.

    Args:
        position: of the training; it moves on while this object lives.
    """

    def __init__(self, metrics: MetricLogger, progress: StepProgress, position: Position) -> None:
        self.metrics, self.progress, self.position = metrics, progress, position
        self._recorded = replace(position)
        self._step = ""
        self._evaluations: dict[str, str] = {}

    @property
    def since_last_step(self) -> Position:
        """Steps and seconds since the last record of a step; at first since the run began, or went on."""
        return self.position.since(self._recorded)

    def step(self, record: Mapping[str, Any], text: str) -> None:
        """Record the step that was just taken."""
        self._step = text
        self._write(record)
        self._recorded = replace(self.position)

    def evaluation(self, kind: str, record: Mapping[str, Any], text: str) -> None:
        """Record an evaluation; the text of the last one of each kind is shown."""
        self._evaluations[kind] = text
        self._write(record)

    def _write(self, record: Mapping[str, Any]) -> None:
        self.metrics.log({"step": self.position.step, **record})
        self.progress.advance(
            self.position.step, ", ".join(text for text in (self._step, *self._evaluations.values()) if text)
        )


class Task:
    """Batches, losses, and hooks that a task overrides where it needs them.

    Attributes:
        title: shown beside the progress.
        device: of the networks.
        position: how far the training is; the `Trainer` moves it on.
        seed: of the training.
        total_steps: optimizer steps of the whole training.
        log_every, checkpoint_every: in steps.
        max_unreadable: more images that cannot be read stop the training.
        data_name: of the training images, for messages.
        lr_key, base_lr: the setting that a diverged training should lower, and its value.
    """

    title: str
    device: torch.device
    optimizer: torch.optim.Optimizer
    position: Position
    seed: int
    total_steps: int
    log_every: int
    checkpoint_every: int
    max_unreadable: int
    data_name: str
    lr_key: str = "lr"
    base_lr: float
    log: RunLog

    def fingerprint(self) -> str:
        """Of all that a resumed training must find unchanged beside its settings: the images."""
        raise NotImplementedError

    def loaders(self, first_step: int, last_step: int) -> Iterable[Iterable[Any]]:
        """The batches of the steps from `first_step` up to `last_step`: one loader for all of them, or one an epoch."""
        raise NotImplementedError

    def unreadable(self, batch: Any) -> list[tuple[int, str]]:
        """(index, what was wrong) of the images of a batch that could not be read."""
        raise NotImplementedError

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """The forward pass: scalars by name, of which `loss` is minimized; none where no image could be read."""
        raise NotImplementedError

    @property
    def lr(self) -> float:
        """The learning rate of the step to come."""
        raise NotImplementedError

    def log_step(self, losses: dict[str, Tensor], lr: float) -> None:
        """Write the record of the step that was just taken into `self.log`; `lr` is the rate it was taken with."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """What the checkpoint holds of the networks; the `Trainer` adds position, optimizer, data and random states."""
        raise NotImplementedError

    def load_state(self, state: dict[str, Any]) -> None:
        """Load what `state` gave."""
        raise NotImplementedError

    # Hooks.

    def prepare(self, folder: Path) -> None:
        """Compute what the first step needs; a resumed training loads its checkpoint after this."""

    def start(self, log: RunLog, last_step: int) -> None:
        """Called once before the first step, at step `self.position.step`."""
        self.log = log

    def accumulation(self) -> contextlib.AbstractContextManager[Any]:
        """Entered for forward, backward and step."""
        return contextlib.nullcontext()

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def set_lr(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    @property
    def step_is_complete(self) -> bool:
        """Whether the last batch was the last part of its step, where steps accumulate gradients."""
        return True

    def before_step(self) -> None:
        """Called when the gradients of a step are complete."""

    def after_step(self) -> None:
        """Called when the optimizer has stepped."""

    def measure(self, last_step: int) -> None:
        """Called after each step is counted and logged: evaluations that are due."""

    def log_is_due(self, step: int, last_step: int) -> bool:
        return step % self.log_every == 0 or step == last_step

    def save_is_due(self, step: int) -> bool:
        return step % self.checkpoint_every == 0

    @property
    def may_save(self) -> bool:
        """Whether a training can go on exactly from the state of this moment, between two batches."""
        return self.step_is_complete

    @property
    def finished(self) -> bool:
        return self.position.step >= self.total_steps

    def close(self) -> None:
        """Called when the training ends, however it ends."""

    def finish(self) -> None:
        """Called when `Trainer.train` has taken all its steps."""
