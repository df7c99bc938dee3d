"""What a `Trainer` trains: everything in which one training differs from another."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from disco_zoo.training.monitoring.run_log import RunLog
from disco_zoo.training.position import Position


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
