"""DisCo (Gao et al. 2021, arXiv:2104.09124): MoCo-v2 plus embeddings that stay close to a frozen teacher's.

spec 2.2, with the decisions it recommends: a per-sample mean with an explicit weight, a fresh queue,
a teacher in eval mode. `preset: official` repeats the authors' code instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import NonNegativeFloat
from torch import Tensor

from disco_zoo.core.schema import EmaMomentum
from disco_zoo.methods.base import Batch, Method
from disco_zoo.methods.teacher_targets import QueueInit, contrast_beside, unit_teacher_rows
from disco_zoo.models.encoder import Encoder
from disco_zoo.models.teacher import Teacher
from disco_zoo.modules.momentum_contrast import MomentumContrast, RunningCenter
from disco_zoo.modules.similarity import at_least_float32


def consistency_loss(student: Tensor, teacher: Tensor, reduction: Literal["mean", "sum"] = "mean") -> Tensor:
    """‖t − s‖² of each row, averaged (or summed, as the official code does) over rows.

    Args:
        student: (b, D), L2-normalised, with gradient.
        teacher: (b, D), L2-normalised; no gradient flows into it.
        reduction: "mean" does not depend on the batch's split over processes; "sum" does (quirk Q2).
    """
    with torch.autocast(student.device.type, enabled=False):
        squared = (at_least_float32(teacher.detach()) - at_least_float32(student)).pow(2).sum(dim=1)
        return squared.mean() if reduction == "mean" else squared.sum()


def joint_consistency_loss(
    student: Sequence[Tensor], teacher: Sequence[Tensor], reduction: Literal["mean", "sum"]
) -> Tensor:
    """The sum over views of `consistency_loss`."""
    losses = [consistency_loss(s, t, reduction) for s, t in zip(student, teacher, strict=True)]
    return torch.stack(losses).sum()


class DisCo(Method):
    """L = w_c · InfoNCE(s(x₁), k(x₂)) + w_d · (‖t(x₁) − s(x₁)‖² + ‖t(x₂) − s(x₂)‖²).

    Args:
        contrast: of the contrastive part, the keys of `MomentumContrast`.
        contrast_weight: w_c; 0 is the paper's "only MSE" variant.
        distill_weight: w_d, per sample. The official sum over 32 images a process equals 32 here.
        distill_reduction: "sum" repeats the official code; its effective weight is the local batch size.
        centre_teacher: subtract a running mean from the teacher's features first. For teachers without an
            SSL head, whose pooled features share one large component.
        centre_momentum: of that mean, per step.
        queue_init: "teacher" starts the negatives with the queue stored in the teacher's file, as the official loader
            does unintentionally (quirk Q3); "teacher_if_any" also goes on without one.
    """

    needs_teacher: ClassVar[bool] = True
    PARTS = (MomentumContrast,)
    # Q1: teacher left in train mode; Q2: sums over the local batch; Q3: the queue comes along with the teacher.
    OFFICIAL: ClassVar[dict[str, Any]] = {
        "teacher.bn_mode": "train",
        "method.distill_reduction": "sum",
        "method.distill_weight": 1.0,
        "method.queue_init": "teacher_if_any",
    }

    def __init__(
        self,
        student: Encoder,
        teacher: Teacher | None,
        embed_dim: int,
        num_images: int = 0,
        *,
        contrast_weight: NonNegativeFloat = 1.0,
        distill_weight: NonNegativeFloat = 32.0,
        distill_reduction: Literal["mean", "sum"] = "mean",
        centre_teacher: bool = False,
        centre_momentum: EmaMomentum = 0.99,
        queue_init: QueueInit = "random",
        **contrast: Any,
    ) -> None:
        super().__init__(student, teacher, embed_dim, num_images)
        self.contrast = contrast_beside(self.require_teacher(), student, embed_dim, queue_init, **contrast)
        self.contrast_weight, self.distill_weight = contrast_weight, distill_weight
        self.distill_reduction: Literal["mean", "sum"] = distill_reduction
        self.centre = RunningCenter(embed_dim, centre_momentum) if centre_teacher else None

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        targets = unit_teacher_rows(self.require_teacher(), batch, (0, 1), self.centre)
        embeddings = [self.student(view) for view in batch.views]
        contrast = self.contrast.loss(embeddings[0], batch.views[1])
        distill = joint_consistency_loss(embeddings, targets, self.distill_reduction)
        loss = self.contrast_weight * contrast + self.distill_weight * distill
        return {"loss": loss, "contrast": contrast.detach(), "distill": distill.detach()}

    def after_step(self) -> None:
        self.contrast.update_ema(self.student)
