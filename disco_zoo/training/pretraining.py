"""Pretraining by a recipe, as a task of the `Trainer`: data order, views, the method's losses, what watches them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from timm.layers import convert_sync_batchnorm
from torch import Tensor

from disco_zoo.config.optim import require_batches
from disco_zoo.config.recipe import Recipe
from disco_zoo.data.dataset import ImageSource
from disco_zoo.errors import BadRecipe, Interrupted
from disco_zoo.methods.base import batch_on
from disco_zoo.teacher_cache.feature_bank import Preparation
from disco_zoo.training.accelerator import broadcast_batch_norm_alone
from disco_zoo.training.build import Parts
from disco_zoo.training.epoch_loader import EpochBatches, epoch_loader
from disco_zoo.training.monitoring.data_wait import remedy
from disco_zoo.training.monitoring.online_health import OnlineHealth
from disco_zoo.training.monitoring.pretraining_log import OnlineKnn, PretrainingLog
from disco_zoo.training.optim import build_optimizer, lr_at
from disco_zoo.training.replay import Replay, replay_for
from disco_zoo.training.run_data import require_streams
from disco_zoo.training.step_settings import ImageSizes, apply_step_settings
from disco_zoo.training.task import Position, RunLog, Task, total_steps


class Pretraining(Task):
    """One recipe on its images.

    Args:
        parts: networks from `build_parts`, on `device`.
        source: training images.
        knn: online evaluation, or None (no labels, or switched off).
        health: what is watched without labels, or None (switched off).
        workers: processes that draw views; 0 draws them in this one. The views are the same.
    """

    lr_key = "optim.base_lr"

    def __init__(
        self,
        recipe: Recipe,
        parts: Parts,
        source: ImageSource,
        *,
        accelerator: Any,
        knn: OnlineKnn | None = None,
        health: OnlineHealth | None = None,
        workers: int = 0,
        label: str = "training",
    ) -> None:
        self.recipe, self.source, self.knn, self.health = recipe, source, knn, health
        self.accelerator, self.workers, self.title = accelerator, workers, label
        self.device, self.position, self.seed = accelerator.device, Position(), recipe.seed
        self.steps_per_epoch = recipe.optim.steps_per_epoch(len(source))
        self.total_steps = total_steps(recipe, len(source))
        self.log_every, self.checkpoint_every = recipe.log.log_every_steps, recipe.log.checkpoint_every_steps
        self.max_unreadable, self.data_name = recipe.data.max_unreadable_images, source.name
        self.base_lr = recipe.optim.base_lr
        require_batches(recipe.optim, len(source), accelerator.num_processes)
        self.image_sizes = ImageSizes(recipe, self.steps_per_epoch)
        require_streams(recipe, source, accelerator.num_processes)
        if recipe.optim.sync_bn and accelerator.num_processes > 1:
            if accelerator.device.type == "cpu":
                raise BadRecipe("optim.sync_bn works on GPUs only. Type: --set optim.sync_bn=false")
            # torch's own converter would drop the activations that timm fuses into BatchNorm.
            parts.method = convert_sync_batchnorm(parts.method)
        apply_step_settings(recipe, parts)
        optimizer = build_optimizer(parts.method.parameters(), recipe.optim, recipe.lr)
        self.plain_method, self.teacher = parts.method, parts.teacher
        self.replay: Replay | None = None
        broadcast_batch_norm_alone(parts.method)
        self.method, self.optimizer = accelerator.prepare(parts.method, optimizer)
        self.batches = EpochBatches(self._loader, begins_early=workers > 0)

    def fingerprint(self) -> str:
        return self.source.fingerprint()

    def prepare(self, folder: Path) -> None:
        preparation = Preparation(self.source, folder, self.recipe.seed, self.device, self.workers)
        try:
            self.plain_method.prepare(preparation)
        except KeyboardInterrupt as error:
            raise Interrupted(
                f"stopped while preparing, before the first step; what was computed to its end is kept in "
                f"{folder}. To go on, repeat the command with --resume"
            ) from error
        self.replay = replay_for(
            self.recipe, self.teacher, self.source, accelerator=self.accelerator, workers=self.workers
        )

    def start(self, log: RunLog, last_step: int) -> None:
        self.log = log
        self.records = PretrainingLog(log, self.recipe.optim.batch_size, lambda: remedy(self.workers, self.device))
        if self.health is not None and self.position.step < last_step:
            # Where a run goes on, too: forwards in train mode move statistics of the teacher that no checkpoint holds.
            self.health.see_teacher(self.plain_method, self.device)
        if self.position.step == 0:
            self._watch_health(0, last_step)

    def loaders(self, first_step: int, last_step: int) -> Iterator[Iterable[dict[str, Any]]]:
        """The rest of the first epoch, then one epoch after another."""
        self._last_step = last_step
        for epoch in range(first_step // self.steps_per_epoch, self.recipe.optim.epochs):
            self.plain_method.start_epoch(epoch)
            yield self.batches.rest_of(epoch, self.position.step - epoch * self.steps_per_epoch)

    def unreadable(self, batch: dict[str, Any]) -> list[tuple[int, str]]:
        found: list[tuple[int, str]] = batch["unreadable"]
        return found

    def losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        step = self.position.step
        if self._ends_epoch(step + 1) and step + 1 < self._last_step:
            self.batches.begin((step + 1) // self.steps_per_epoch)
        if self.replay is not None and batch["mismatches"]:
            raise self.replay.refusal_of(batch["mismatches"])
        self.method.train()
        self.image_sizes.apply(self.plain_method, step)
        losses: dict[str, Tensor] = self.method(batch_on(self.device, batch))
        return losses

    def accumulation(self) -> contextlib.AbstractContextManager[Any]:
        context: contextlib.AbstractContextManager[Any] = self.accelerator.accumulate(self.method)
        return context

    def backward(self, loss: Tensor) -> None:
        self.accelerator.backward(loss)

    @property
    def step_is_complete(self) -> bool:
        return bool(self.accelerator.sync_gradients)

    def before_step(self) -> None:
        self.plain_method.before_step()

    def after_step(self) -> None:
        self.plain_method.after_step()

    @property
    def lr(self) -> float:
        return lr_at(
            self.position.step,
            peak_lr=self.recipe.lr,
            steps_per_epoch=self.steps_per_epoch,
            optim=self.recipe.optim,
        )

    def log_step(self, losses: dict[str, Tensor], lr: float) -> None:
        size = self.image_sizes.at(self.position.step - 1) if self.recipe.student.image_sizes else None
        self.records.step(self._epoch, losses, lr, size)

    def measure(self, last_step: int) -> None:
        if self._knn_is_due(self.position.step, last_step):
            assert self.knn is not None
            self.records.knn(self._epoch, self.knn(self.plain_method.student, self.device))
        self._watch_health(self._epoch, last_step)

    def save_is_due(self, step: int) -> bool:
        return super().save_is_due(step) or self._ends_epoch(step)

    def state(self) -> dict[str, Any]:
        scaler = self.accelerator.scaler
        return {
            "recipe": self.recipe.digest(),
            "method": self.plain_method.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.plain_method.load_state_dict(state["method"], strict=True)
        if state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])

    def close(self) -> None:
        self.batches.close()

    @property
    def _epoch(self) -> int:
        """Of the step that was taken last."""
        return (self.position.step - 1) // self.steps_per_epoch

    def _ends_epoch(self, step: int) -> bool:
        return step % self.steps_per_epoch == 0

    def _loader(self, epoch: int, start_step: int) -> Iterable[dict[str, Any]]:
        """The rest of an epoch, in micro-batches of this process."""
        return epoch_loader(
            self.recipe,
            self.source,
            self.plain_method,
            epoch=epoch,
            start_step=start_step,
            workers=self.workers,
            device=self.device,
            rank=self.accelerator.process_index,
            num_processes=self.accelerator.num_processes,
            replay=self.replay,
        )

    def _watch_health(self, epoch: int, last_step: int) -> None:
        if self.health is not None and self.health.is_due(self.position.step, last_step):
            self.records.health(epoch, self.health(self.plain_method, self.position.step, self.device))

    def _knn_is_due(self, step: int, last_step: int) -> bool:
        every = self.recipe.log.knn_every_steps(self.steps_per_epoch)
        return self.knn is not None and every > 0 and (step % every == 0 or step == last_step)
