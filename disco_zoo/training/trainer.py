"""The training loop of all tasks: steps, checkpoints, resuming, interrupts, divergence, logs and waiting for data."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from disco_zoo.core.checkpoint import load_checkpoint, random_state, restore_random_states, save_checkpoint
from disco_zoo.core.console import StepProgress
from disco_zoo.core.distributed import gather_objects, num_processes, rank
from disco_zoo.core.interrupts import InterruptFlag
from disco_zoo.core.process import KeptMemory
from disco_zoo.data.unreadable import UnreadableList
from disco_zoo.errors import BadRunFolder, CannotRead, DiscoZooError, Interrupted, TrainingDiverged
from disco_zoo.training.metrics import MetricLogger
from disco_zoo.training.monitoring.data_wait import DataWait
from disco_zoo.training.optim import restore_optimizer
from disco_zoo.training.run_folder import RunFolder
from disco_zoo.training.stopping import BadLoss, LossWatch, StopVotes, stopped
from disco_zoo.training.task import Position, RunLog, Task

FORMER_KEYS = {"progress": "position", "optimiser": "optimizer"}  # of a fine-tuning's checkpoint up to 0.1


class Trainer:
    """One training of one task in one folder.

    Args:
        folder: a claimed run folder.
        trackers: of Accelerate, see `Tracking`; they are told the `settings`.
    """

    def __init__(
        self,
        task: Task,
        folder: RunFolder,
        *,
        trackers: Sequence[str] = (),
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.task, self.folder, self.position = task, folder, task.position
        self.trackers, self.settings = trackers, settings
        self.unreadable = UnreadableList(folder.path, task.max_unreadable)
        self.watch = LossWatch(task.device)
        self._used_lr = 0.0
        self._saved_step: int | None = None

    def train(self, *, resume: bool = False, max_steps: int | None = None) -> Position:
        """Train to the end, or to step `max_steps`; a later resume goes on exactly where this stopped.

        `max_steps=0` trains nothing.

        Raises:
            TrainingDiverged: the loss is not finite; the last checkpoint stays.
            Interrupted: Ctrl-C; the checkpoint is saved, or the words say of which step it is.
            BadData: too many images cannot be read.
            CannotRead: disk, memory or a process failed; the checkpoint is saved, as above.
        """
        task, position = self.task, self.position
        if resume:  # asked before what may take hours, and not kept in memory meanwhile
            self._read_checkpoint()
        if max_steps != 0:
            task.prepare(self.folder.path)
        if resume:
            self._restore(self._read_checkpoint())
            self.folder.accept()
        last_step = task.total_steps if max_steps is None else min(task.total_steps, max_steps)
        metrics = MetricLogger(
            self.folder.path,
            resume_step=position.step if resume else None,
            writes=rank() == 0,
            trackers=self.trackers if max_steps != 0 else (),
            run_name=task.title,
            settings=self.settings,
        )
        self.wait = DataWait(task.device, position.data_wait_seconds)
        try:
            with InterruptFlag() as flag, StepProgress(task.title, last_step, position.step) as progress:
                self.stops = StopVotes(flag, task.device, position.step)
                try:
                    task.start(RunLog(metrics, progress, position), last_step)
                    self._run(last_step)
                except (CannotRead, Interrupted) as error:
                    raise self._saved_before(error) from error
        finally:
            task.close()
            metrics.close()
        task.finish()
        return position

    def _run(self, last_step: int) -> None:
        """The loop."""
        task, position = self.task, self.position
        if task.finished or position.step >= last_step:
            return
        self._clock = time.monotonic()
        parts: list[dict[str, Tensor]] = []
        with KeptMemory(task.device) as memory:
            for loader in task.loaders(position.step, last_step):
                for batch in self.wait.over(loader):
                    parts.append({name: loss.detach() for name, loss in self._micro_step(batch).items()})
                    if not task.step_is_complete:
                        continue
                    self._end_step(_mean_losses(parts), last_step)
                    parts.clear()
                    memory.after_step()
                    if self.stops(position.step):
                        raise Interrupted("stopped")
                    ends = task.finished or position.step >= last_step
                    if ends or task.save_is_due(position.step):
                        self._save()
                    if ends:
                        return
                    self._clock = time.monotonic()

    def _micro_step(self, batch: Any) -> dict[str, Tensor]:
        """Forward and backward on one batch; the optimizer steps when the gradients of its step are complete."""
        task = self.task
        self.unreadable.note(self.position.unreadable, task.unreadable(batch))
        with task.accumulation():
            losses = task.losses(batch)
            lr = self._used_lr = task.lr
            if losses:
                self._stop_if_bad(self.watch.note(losses["loss"], self.position.step, lr))
                task.backward(losses["loss"])
                task.set_lr(lr)
                if task.step_is_complete:
                    task.before_step()
                task.optimizer.step()
                task.optimizer.zero_grad()
        return losses

    def _end_step(self, losses: dict[str, Tensor], last_step: int) -> None:
        """Count, log and measure the step that was just taken."""
        task, position = self.task, self.position
        task.after_step()
        self.wait.step_queued()
        position.step += 1
        log_is_due = task.log_is_due(position.step, last_step)
        if log_is_due or task.save_is_due(position.step):
            self._require_finite()  # waits for an accelerator, hence before the clock is read
        position.seconds += time.monotonic() - self._clock
        position.data_wait_seconds = self.wait.seconds
        if losses and log_is_due:
            task.log_step(losses, self._used_lr)
        task.measure(last_step)

    def _saved_before(self, error: CannotRead | Interrupted) -> DiscoZooError:
        """Save the checkpoint where the state allows it; return the error with the step that was reached."""
        # Other processes do not know of it, and cannot save with this one; part of a batch is no state to go on from.
        all_know = num_processes() == 1 or self.stops.agreed
        if all_know and self.task.may_save and self.position.step:
            self._save()
        return stopped(error, self.position.step, self.task.total_steps, self._saved_step)

    def _save(self) -> None:
        self._require_finite()
        task, position = self.task, self.position
        randoms = gather_objects(random_state())
        unreadable = gather_objects(position.unreadable)
        if rank() != 0:
            self._saved_step = position.step
            return
        position.unreadable = {index: why for found in unreadable for index, why in found.items()}
        self.unreadable.write(position.unreadable)
        save_checkpoint(
            self.folder.checkpoint,
            {
                **task.state(),
                "data": task.fingerprint(),
                "position": vars(position).copy(),
                "optimizer": task.optimizer.state_dict(),
                "random": randoms,
            },
        )
        self._saved_step = position.step

    def _read_checkpoint(self) -> dict[str, Any]:
        """The state of a training on these images.

        Raises:
            BadRunFolder: missing, damaged, or of a training on other images.
        """
        state = load_checkpoint(self.folder.checkpoint)
        if state.get("data") != self.task.fingerprint():
            raise BadRunFolder(
                f"{self.folder.path} holds a run on other images than {self.task.data_name}. "
                "Repeat the command with the --data that started it, or choose another --out"
            )
        return {FORMER_KEYS.get(key, key): value for key, value in state.items()}

    def _restore(self, state: dict[str, Any]) -> None:
        self.task.load_state(state)
        restore_optimizer(self.task.optimizer, state["optimizer"])
        vars(self.position).update(state["position"])
        self._saved_step = self.position.step
        randoms = state["random"]
        restore_random_states(randoms if isinstance(randoms, list) else [randoms], self.task.seed, self.position.step)

    def _require_finite(self) -> None:
        self._stop_if_bad(self.watch.first_bad())

    def _stop_if_bad(self, bad: BadLoss | None) -> None:
        if bad is not None:
            kept = f"The last checkpoint is kept in {self.folder.path}. " if self.folder.checkpoint.is_file() else ""
            raise TrainingDiverged(
                f"the loss is {bad.value} at step {bad.step} with lr {bad.lr:.3g}. {kept}"
                f"Start again with --set {self.task.lr_key}={self.task.base_lr / 3:.2g} and another --out"
            )


def _mean_losses(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The losses of a step, each the mean over its micro-batches; on their device, so that nobody waits for them."""
    found = [losses for losses in parts if losses]
    return {name: torch.stack([losses[name] for losses in found]).mean() for name in (found[0] if found else ())}
