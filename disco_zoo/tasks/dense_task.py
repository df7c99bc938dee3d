"""Detection and segmentation as tasks of the `Trainer`: a plan in steps, named losses, and a curve of figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from disco_zoo.data.unreadable import unreadable_limit
from disco_zoo.training.metrics import MetricLogger, read_metrics
from disco_zoo.training.run_folder import RunFolder
from disco_zoo.training.task import Position, Task

LOG_EVERY = 10
Batch = tuple[list[Tensor], list[Any], dict[int, str]]
"""Images, a target of each, and index -> what was wrong with those that could not be read."""


@dataclass(frozen=True)
class TaskPlan:
    """How to train.

    Attributes:
        title: shown beside the progress.
        data_name: of the training images.
        num_images: in the training set.
        fingerprint: of images and start; a run goes on only with the same.
        batch_size: images a step.
        lr: peak; `lr_factor` of a step, which counts from 0, times this one is used.
        eval_every: steps between measurements for the curve; 0 for none.
        clip_norm: largest norm of the gradient; None for any.
    """

    title: str
    data_name: str
    num_images: int
    fingerprint: str
    steps: int
    batch_size: int
    lr: float
    lr_factor: Callable[[int], float]
    checkpoint_every: int
    seed: int
    eval_every: int = 0
    clip_norm: float | None = None


class DenseTask(Task):
    """A model with named losses, whose sum is minimized.

    Args:
        model: put into train mode at each step.
        learning: what the checkpoint holds: the model, or the part of it that learns.
        loader: gives the batches of the steps from a first up to a last one.
        named_losses: of a batch.
        measure: gives figures of the model as it is, for the curve.
    """

    def __init__(
        self,
        model: nn.Module,
        learning: nn.Module,
        optimizer: torch.optim.Optimizer,
        plan: TaskPlan,
        *,
        device: torch.device | str,
        loader: Callable[[int, int], Iterable[Batch]],
        named_losses: Callable[[Batch], dict[str, Tensor]],
        measure: Callable[[], dict[str, float]] | None = None,
    ) -> None:
        self.model, self.learning, self.optimizer, self.plan = model, learning, optimizer, plan
        self.loader, self.named_losses, self.figures = loader, named_losses, measure
        self.title, self.data_name, self.seed, self.base_lr = plan.title, plan.data_name, plan.seed, plan.lr
        self.total_steps, self.log_every, self.checkpoint_every = plan.steps, LOG_EVERY, plan.checkpoint_every
        self.max_unreadable = unreadable_limit(plan.num_images)
        self.device, self.position = torch.device(device), Position()

    def fingerprint(self) -> str:
        return self.plan.fingerprint

    def loaders(self, first_step: int, last_step: int) -> Iterator[Iterable[Batch]]:
        yield self.loader(first_step, last_step)

    def unreadable(self, batch: Batch) -> list[tuple[int, str]]:
        return [*batch[2].items()]

    @property
    def lr(self) -> float:
        return self.plan.lr * self.plan.lr_factor(self.position.step)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        if not batch[0]:
            return {}
        self.model.train()
        parts = self.named_losses(batch)
        total = torch.stack([*parts.values()]).sum()
        return {"loss": total, **(parts if len(parts) > 1 else {})}

    def before_step(self) -> None:
        if self.plan.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.learning.parameters(), self.plan.clip_norm)

    def log_step(self, losses: dict[str, Tensor], lr: float) -> None:
        values = {name: value.item() for name, value in losses.items()}
        speed = self.log.since_last_step.images_per_s(self.plan.batch_size)
        record = {**values, "lr": lr, "images_per_s": round(speed, 3)}
        self.log.step(record, f"{speed:.1f} images/s, loss {values['loss']:.3f}")

    def measure(self, last_step: int) -> None:
        every, step = self.plan.eval_every, self.position.step
        if self.figures is None or not every or step % every or step == self.total_steps:
            return  # at the end the run measures, and logs what it found
        found = self.figures()
        texts = [f"{key.replace('_', ' ')} {value:.1f} %" for key, value in found.items()]
        self.log.evaluation("figures", found, ", ".join(texts))

    def state(self) -> dict[str, Any]:
        return {"model": self.learning.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.learning.load_state_dict(state["model"], strict=True)


def log_once(folder: RunFolder, step: int, figures: Mapping[str, float]) -> None:
    """Add the figures of the end to the metrics, also when a finished run is resumed and measured again."""
    rows = read_metrics(folder.path)
    if any(row["step"] == step and row.keys() >= figures.keys() for row in rows):
        return
    logger = MetricLogger(folder.path, resume_step=step)
    logger.log({"step": step, **figures})
    logger.close()
