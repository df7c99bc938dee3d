"""The training loop of tasks that are no recipe's, detection and segmentation: steps, checkpoints, metrics."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from disco_zoo.core.checkpoint import load_checkpoint, random_state, restore_random_state, save_checkpoint
from disco_zoo.core.console import StepProgress
from disco_zoo.core.interrupts import InterruptFlag
from disco_zoo.data.unreadable import UnreadableTally, unreadable_limit
from disco_zoo.errors import BadRunFolder, CannotRead, Interrupted, TrainingDiverged
from disco_zoo.tasks.task_folder import TaskFolder
from disco_zoo.training.monitoring.metric_logger import MetricLogger, read_metrics
from disco_zoo.training.stopping import stopped

LOG_EVERY = 10
Batch = tuple[list[Tensor], list[Any], dict[int, str]]
"""Images, a target of each, and index -> what was wrong with those that could not be read."""


@dataclass
class Progressed:
    """How far a training is; all of it goes into the checkpoint."""

    step: int = 0
    seconds: float = 0.0
    unreadable: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskPlan:
    """How to train.

    Attributes:
        title: shown beside the progress.
        num_images: in the training set.
        fingerprint: of images and start; a run goes on only with the same.
        batch_size: images a step.
        lr: peak; `lr_factor` of a step, which counts from 0, times this one is used.
        eval_every: steps between measurements for the curve; 0 for none.
        clip_norm: largest norm of the gradient; None for any.
    """

    title: str
    num_images: int
    fingerprint: str
    steps: int
    batch_size: int
    lr: float
    lr_factor: Callable[[int], float]
    checkpoint_every: int
    eval_every: int = 0
    clip_norm: float | None = None


class TaskTrainer:
    """One training of one model.

    Args:
        model: put into train mode at each step.
        learning: what the checkpoint holds: the model, or the part of it that learns.
        folder: a claimed run folder.
        loader: gives the batches of the steps from a first up to a last one.
        losses: named losses of a batch, whose sum is minimised.
        measure: gives figures of the model as it is, for the curve.
    """

    def __init__(
        self,
        model: nn.Module,
        learning: nn.Module,
        optimizer: torch.optim.Optimizer,
        plan: TaskPlan,
        folder: TaskFolder,
        *,
        loader: Callable[[int, int], Iterable[Batch]],
        losses: Callable[[Batch], dict[str, Tensor]],
        measure: Callable[[], dict[str, float]] | None = None,
    ) -> None:
        self.model, self.learning, self.optimizer, self.plan, self.folder = model, learning, optimizer, plan, folder
        self.loader, self.losses, self.measure = loader, losses, measure
        self.done = Progressed()

    def train(self, *, resume: bool = False, max_steps: int | None = None) -> Progressed:
        """Train to the end, or to step `max_steps`; a later resume goes on exactly where this stopped.

        Raises:
            TrainingDiverged: the loss is not finite; the last checkpoint stays.
            Interrupted: Ctrl-C; the checkpoint is saved.
            BadData: too many images cannot be read.
            CannotRead: disk, memory or a process failed; the checkpoint is saved.
        """
        if resume and self.folder.checkpoint.is_file():
            self._restore()
        last_step = min(self.plan.steps, max_steps or self.plan.steps)
        self.metrics = MetricLogger(self.folder.path, resume_step=self.done.step if resume else None)
        try:
            with InterruptFlag() as flag, StepProgress(self.plan.title, last_step, self.done.step) as progress:
                try:
                    self._run(last_step, flag, progress)
                except (CannotRead, Interrupted) as error:
                    if self.done.step:
                        self._save()
                    raise stopped(error, self.done.step, self.plan.steps, self.folder.checkpoint) from error
        finally:
            self.metrics.close()
        return self.done

    def _run(self, last_step: int, flag: InterruptFlag, progress: StepProgress) -> None:
        clock = time.monotonic()
        for batch in self.loader(self.done.step, last_step):
            losses = self._step(batch)
            self.done.step += 1
            self.done.seconds += time.monotonic() - clock
            self._log(losses, last_step, progress)
            self._measure_when_due(progress)
            clock = time.monotonic()
            if flag.raised or self.done.step == last_step:
                break
            if self.done.step % self.plan.checkpoint_every == 0:
                self._save()
        if flag.raised and self.done.step < last_step:
            raise Interrupted("stopped")
        self._save()

    def _step(self, batch: Batch) -> dict[str, float]:
        self._note_unreadable(batch[2])
        factor = self.plan.lr_factor(self.done.step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.lr * factor
        if not batch[0]:  # none of its images could be read
            return {}
        self.model.train()
        losses = self.losses(batch)
        total = torch.stack([*losses.values()]).sum()
        if not math.isfinite(total.item()):
            raise TrainingDiverged(
                f"the loss is {total.item()} at step {self.done.step} with lr {self.plan.lr * factor:.3g}. "
                f"Start again with --set lr={self.plan.lr / 3:.2g} and another --out"
            )
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        if self.plan.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.learning.parameters(), self.plan.clip_norm)
        self.optimizer.step()
        parts = {name: value.item() for name, value in losses.items()} if len(losses) > 1 else {}
        return {"loss": total.item(), **parts}

    def _log(self, losses: dict[str, float], last_step: int, progress: StepProgress) -> None:
        step = self.done.step
        if losses and (step % LOG_EVERY == 0 or step == last_step):
            speed = step * self.plan.batch_size / max(self.done.seconds, 1e-9)
            lr = self.optimizer.param_groups[0]["lr"]
            self.metrics.log({"step": step, **losses, "lr": lr, "images_per_s": round(speed, 3)})
            self._figures = f"{speed:.1f} images/s, loss {losses['loss']:.3f}"
            progress.advance(step, self._figures + self._measured)

    _figures = ""
    _measured = ""

    def _measure_when_due(self, progress: StepProgress) -> None:
        every, step = self.plan.eval_every, self.done.step
        if self.measure is None or not every or step % every or step == self.plan.steps:
            return  # at the end the run measures, and logs what it found
        figures = self.measure()
        self.metrics.log({"step": step, **figures})
        self._measured = "".join(f", {key.replace('_', ' ')} {value:.1f} %" for key, value in figures.items())
        progress.advance(step, self._figures + self._measured)

    def _note_unreadable(self, faults: dict[int, str]) -> None:
        self.done.unreadable.update(faults)
        tally = UnreadableTally(unreadable_limit(self.plan.num_images))
        tally.messages = self.done.unreadable
        if faults:
            tally.write(self.folder.path / "unreadable_images.txt")
        tally.check(self.folder.path / "unreadable_images.txt")

    def _save(self) -> None:
        state = {
            "data": self.plan.fingerprint,
            "position": vars(self.done).copy(),
            "model": self.learning.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": random_state(),
        }
        save_checkpoint(self.folder.checkpoint, state)

    def _restore(self) -> None:
        state = load_checkpoint(self.folder.checkpoint)
        if state.get("data") != self.plan.fingerprint:
            raise BadRunFolder(
                f"{self.folder.path} holds a run on other images. Repeat the command with the --data that started it, "
                "or choose another --out"
            )
        self.learning.load_state_dict(state["model"], strict=True)
        self.optimizer.load_state_dict(state["optimizer"])
        self.done = Progressed(**state["position"])
        restore_random_state(state["random"])


def curve_rows(metrics: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Records without the figures that were taken only once, at the end: one point is no curve."""
    taken = Counter(key for row in metrics for key in row if key != "step")
    least = min(2, max(taken.values(), default=0))
    return [{key: value for key, value in row.items() if key == "step" or taken[key] >= least} for row in metrics]


def log_once(folder: TaskFolder, step: int, figures: Mapping[str, float]) -> None:
    """Add the figures of the end to the metrics, also when a finished run is resumed and measured again."""
    rows = read_metrics(folder.path)
    if any(row["step"] == step and row.keys() >= figures.keys() for row in rows):
        return
    logger = MetricLogger(folder.path, resume_step=step)
    logger.log({"step": step, **figures})
    logger.close()
