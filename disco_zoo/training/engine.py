"""The training loop. It knows data order, steps, checkpoints and logs, and no method."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from timm.layers import convert_sync_batchnorm
from torch import Tensor

from disco_zoo.config.optim import require_batches
from disco_zoo.config.recipe import Recipe
from disco_zoo.core.checkpoint import random_state, save_checkpoint
from disco_zoo.core.console import StepProgress
from disco_zoo.core.distributed import gather_objects, num_processes, rank
from disco_zoo.core.interrupts import InterruptFlag
from disco_zoo.data.dataset import ImageSource
from disco_zoo.data.unreadable_list import UnreadableList
from disco_zoo.errors import BadRecipe, CannotRead, DiscoZooError, Interrupted, TrainingDiverged
from disco_zoo.methods.batch import batch_on
from disco_zoo.teacher_cache.preparation import Preparation
from disco_zoo.training.accelerator import broadcast_batch_norm_alone
from disco_zoo.training.build import Parts
from disco_zoo.training.epoch_loader import EpochBatches, epoch_loader
from disco_zoo.training.image_sizes import ImageSizes
from disco_zoo.training.monitoring.data_wait import DataWait, remedy
from disco_zoo.training.monitoring.loss_watch import BadLoss, LossWatch
from disco_zoo.training.monitoring.metric_logger import MetricLogger
from disco_zoo.training.monitoring.online_health import OnlineHealth
from disco_zoo.training.monitoring.online_knn import OnlineKnn
from disco_zoo.training.monitoring.run_log import RunLog
from disco_zoo.training.optim import build_optimizer, lr_at, restore_optimizer
from disco_zoo.training.position import Position, TrainResult, total_steps
from disco_zoo.training.replay.of_run import Replay, replay_for
from disco_zoo.training.resumption import read_checkpoint, restore_draws
from disco_zoo.training.run_folder import RunFolder
from disco_zoo.training.step_settings import apply_step_settings
from disco_zoo.training.stopping import StopVotes, stopped
from disco_zoo.training.stream_training import require_streams


class Trainer:
    """One run of one recipe.

    Args:
        parts: networks from `build_parts`, on `device`.
        source: training images.
        folder: a claimed run folder.
        knn: online evaluation, or None (no labels, or switched off).
        health: what is watched without labels, or None (switched off).
        workers: processes that draw views; 0 draws them in this one. The views are the same.
    """

    def __init__(
        self,
        recipe: Recipe,
        parts: Parts,
        source: ImageSource,
        folder: RunFolder,
        *,
        accelerator: Any,
        knn: OnlineKnn | None = None,
        health: OnlineHealth | None = None,
        workers: int = 0,
        label: str = "training",
    ) -> None:
        self.recipe, self.source, self.folder, self.knn, self.health = recipe, source, folder, knn, health
        self.accelerator, self.workers, self.label = accelerator, workers, label
        self.steps_per_epoch = recipe.optim.steps_per_epoch(len(source))
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
        self.position = Position()
        self.unreadable = UnreadableList(folder.path, recipe.data.max_unreadable_images)
        self.watch = LossWatch(accelerator.device)
        self.batches = EpochBatches(self._loader, begins_early=workers > 0)

    @property
    def total_steps(self) -> int:
        return total_steps(self.recipe, len(self.source))

    @property
    def finished(self) -> bool:
        return self.position.step >= self.total_steps

    def train(self, *, resume: bool = False, max_steps: int | None = None) -> TrainResult:
        """Run to the recipe's end, or to step `max_steps`; a later resume goes on exactly where this stopped.

        `max_steps=0` trains nothing: what is exported is the start.

        Raises:
            TrainingDiverged: the loss is not finite; the last checkpoint stays.
            Interrupted: Ctrl-C; the checkpoint is saved.
            BadData: too many images cannot be read.
            CannotRead: disk, memory or a process failed; the checkpoint is saved.
        """
        if resume:  # asked before what may take hours, and not kept in memory meanwhile
            read_checkpoint(self.folder.checkpoint, self.source)
        if max_steps != 0:
            self._prepare()
        if resume:
            self._restore(read_checkpoint(self.folder.checkpoint, self.source))
        resume_step = self.position.step if resume else None
        metrics = MetricLogger(self.folder.path, resume_step=resume_step, writes=rank() == 0)
        last_step = self.total_steps if max_steps is None else min(self.total_steps, max_steps)
        device, position, batch_size = self.accelerator.device, self.position, self.recipe.optim.batch_size
        self.wait = DataWait(device, position.data_wait_seconds)
        try:
            with InterruptFlag() as flag, StepProgress(self.label, last_step, position.step) as progress:
                self.log = RunLog(metrics, progress, position, batch_size, lambda: remedy(self.workers, device))
                self.stops = StopVotes(flag, device, position.step)
                try:
                    self._run(last_step)
                except (CannotRead, Interrupted) as error:
                    raise self._saved_before(error) from error
        finally:
            self.batches.close()
            metrics.close()
        seconds = max(position.seconds, 1e-9)
        return TrainResult(
            position.step,
            self.total_steps,
            seconds,
            position.step * batch_size / seconds,
            position.data_wait_seconds / seconds,
            len(position.unreadable),
        )

    def _prepare(self) -> None:
        preparation = Preparation(
            self.source, self.folder.path, self.recipe.seed, self.accelerator.device, self.workers
        )
        try:
            self.plain_method.prepare(preparation)
        except KeyboardInterrupt as error:
            raise Interrupted(
                f"stopped while preparing, before the first step; what was computed to its end is kept in "
                f"{self.folder.path}. To go on, repeat the command with --resume"
            ) from error
        self.replay = replay_for(
            self.recipe, self.teacher, self.source, accelerator=self.accelerator, workers=self.workers
        )

    def _run(self, last_step: int) -> None:
        """Epochs and steps: the loop."""
        if self.position.step == 0:
            self._watch_health(0, last_step)
        while self.position.step < last_step:
            self._clock = time.monotonic()
            epoch = self.position.step // self.steps_per_epoch
            self.plain_method.start_epoch(epoch)
            begin, end = epoch * self.steps_per_epoch, (epoch + 1) * self.steps_per_epoch
            for batch in self.wait.over(self.batches.rest_of(epoch, self.position.step - begin)):
                if self.position.step == end - 1 and end < last_step:
                    self.batches.begin(epoch + 1)
                losses = self._micro_step(batch)
                if not self.accelerator.sync_gradients:
                    continue
                self.plain_method.after_step()
                self.wait.step_queued()
                self.position.step += 1
                if self.position.step == end or self._log_is_due(last_step) or self._save_is_due():
                    self._require_finite()  # waits for an accelerator, hence before the clock is read
                self._count_time()
                self._after_step(losses, epoch, last_step)
                self._clock = time.monotonic()
                if self.stops(self.position.step):
                    raise Interrupted("stopped")
                if self.position.step >= last_step:
                    break
            self._save()

    def _saved_before(self, error: CannotRead | Interrupted) -> DiscoZooError:
        """The error, with what is kept, once that is saved: it came between two steps."""
        # Other processes do not know of it, and cannot save with this one; part of a batch is no state to go on from.
        all_know = num_processes() == 1 or self.stops.agreed
        if all_know and self.accelerator.sync_gradients and self.position.step:
            self._save()
        return stopped(error, self.position.step, self.total_steps, self.folder.checkpoint)

    def _micro_step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Forward and backward on one micro-batch; the optimiser steps when the accumulated batch is complete."""
        self.unreadable.note(self.position.unreadable, batch["unreadable"])
        if self.replay is not None and batch["mismatches"]:
            raise self.replay.refusal_of(batch["mismatches"])
        self.method.train()
        self.image_sizes.apply(self.plain_method, self.position.step)
        with self.accelerator.accumulate(self.method):
            losses: dict[str, Tensor] = self.method(batch_on(self.accelerator.device, batch))
            self._stop_if_bad(self.watch.note(losses["loss"], self.position.step, self.lr))
            self.accelerator.backward(losses["loss"])
            for group in self.optimizer.param_groups:
                group["lr"] = self.lr
            self._used_lr = self.lr
            if self.accelerator.sync_gradients:
                self.plain_method.before_step()
            self.optimizer.step()
            self.optimizer.zero_grad()
        return losses

    @property
    def lr(self) -> float:
        """Of the step to come."""
        return lr_at(
            self.position.step,
            peak_lr=self.recipe.lr,
            steps_per_epoch=self.steps_per_epoch,
            optim=self.recipe.optim,
        )

    def _loader(self, epoch: int, start_step: int) -> Iterable[dict[str, Any]]:
        """The rest of an epoch, in micro-batches of this process."""
        return epoch_loader(
            self.recipe,
            self.source,
            self.plain_method,
            epoch=epoch,
            start_step=start_step,
            workers=self.workers,
            device=self.accelerator.device,
            rank=self.accelerator.process_index,
            num_processes=self.accelerator.num_processes,
            replay=self.replay,
        )

    def _after_step(self, losses: dict[str, Tensor], epoch: int, last_step: int) -> None:
        step = self.position.step
        if self._log_is_due(last_step):
            size = self.image_sizes.at(step - 1) if self.recipe.student.image_sizes else None
            self.log.step(epoch, losses, self._used_lr, size)
        if self._knn_is_due(step, last_step):
            assert self.knn is not None
            self.log.knn(epoch, self.knn(self.plain_method.student, self.accelerator.device))
        self._watch_health(epoch, last_step)
        if self._save_is_due() and step < last_step:
            self._save()

    def _watch_health(self, epoch: int, last_step: int) -> None:
        if self.health is not None and self.health.is_due(self.position.step, last_step):
            self.log.health(epoch, self.health(self.plain_method, self.position.step, self.accelerator.device))

    _used_lr = 0.0

    def _log_is_due(self, last_step: int) -> bool:
        return self.position.step % self.recipe.log.log_every_steps == 0 or self.position.step == last_step

    def _save_is_due(self) -> bool:
        return self.position.step % self.recipe.log.checkpoint_every_steps == 0

    def _knn_is_due(self, step: int, last_step: int) -> bool:
        every = round(self.recipe.log.knn_every_epochs * self.steps_per_epoch)
        return self.knn is not None and every > 0 and (step % every == 0 or step == last_step)

    def _save(self) -> None:
        self._require_finite()
        randoms = gather_objects(random_state())
        unreadable = gather_objects(self.position.unreadable)
        if rank() != 0:
            return
        self.position.unreadable = {index: why for found in unreadable for index, why in found.items()}
        self.unreadable.write(self.position.unreadable)
        scaler = self.accelerator.scaler
        save_checkpoint(
            self.folder.checkpoint,
            {
                "recipe": self.recipe.digest(),
                "data": self.source.fingerprint(),
                "position": vars(self.position).copy(),
                "method": self.plain_method.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": None if scaler is None else scaler.state_dict(),
                "random": randoms,
            },
        )

    def _restore(self, state: dict[str, Any]) -> None:
        self.plain_method.load_state_dict(state["method"], strict=True)
        restore_optimizer(self.optimizer, state["optimizer"])
        if state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.position = Position(**state["position"])
        restore_draws(state["random"], self.recipe.seed, self.position.step)

    def _count_time(self) -> None:
        self.position.seconds += time.monotonic() - self._clock
        self.position.data_wait_seconds = self.wait.seconds

    def _require_finite(self) -> None:
        self._stop_if_bad(self.watch.first_bad())

    def _stop_if_bad(self, bad: BadLoss | None) -> None:
        if bad is not None:
            kept = f"The last checkpoint is kept in {self.folder.path}. " if self.folder.checkpoint.is_file() else ""
            raise TrainingDiverged(
                f"the loss is {bad.value} at step {bad.step} with lr {bad.lr:.3g}. {kept}"
                f"Start again with --set optim.base_lr={self.recipe.optim.base_lr / 3:.2g} and another --out"
            )
