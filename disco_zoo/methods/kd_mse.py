"""Plain regression of the teacher's features: the "Reg" and "Reg-BN" rows of the tables of SSL distillation.

The baselines of CompRess (Abbasi Koohpayegani et al. 2020, arXiv:2010.14713): the student's features, one linear
layer to the teacher's width, mean squared error. Its code has no script for them, so there is nothing official to
repeat; CompRess gives figures.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from disco_zoo.core.distributed import num_processes
from disco_zoo.core.schema import EmaMomentum
from disco_zoo.methods.base import Batch, Method
from disco_zoo.methods.teacher_targets import require_two_images, require_width, teacher_rows
from disco_zoo.models.encoder import Encoder
from disco_zoo.models.teacher import Teacher
from disco_zoo.modules.momentum_contrast import RunningCenter
from disco_zoo.modules.similarity import at_least_float32
from disco_zoo.modules.standardize import standardize_batch


def regression_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """‖s_i − t_i / ‖t_i‖‖², summed over dimensions, a mean over rows.

    Args:
        student: (b, D), of any length, with gradient.
        teacher: (b, D); no gradient flows into it.
    """
    with torch.autocast(student.device.type, enabled=False):
        targets = F.normalize(at_least_float32(teacher.detach()), dim=1)
        return (at_least_float32(student) - targets).pow(2).sum(dim=1).mean()


def standardized_regression_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """‖ŝ_i − t̂_i‖² / D, a mean over rows; ŝ and t̂ have mean 0 and variance 1 in each dimension of the joint batch.

    The division by D gives the rows an expected length of 1, so that both losses are of one scale.

    Args:
        student: (b, D), with gradient.
        teacher: (b, D); no gradient flows into it.
    """
    with torch.autocast(student.device.type, enabled=False):
        return (standardize_batch(student) - standardize_batch(teacher.detach())).pow(2).mean(dim=1).mean()


class KdMse(Method):
    """L = mean squared error between the student's head and the teacher; one view, no queue, no twin.

    `student.head: linear` is the baseline as described; `student.head: none` also drops the linear layer.

    Args:
        batch_norm: True is Reg-BN: both sides standardised by the batch, without parameters, since the spaces of
            the two networks differ. False is Reg: the student's numbers against the teacher's unit vectors.
        centre_teacher: subtract a running mean from the teacher's features first; without effect under batch_norm.
        centre_momentum: of that mean, per step.
    """

    num_views: ClassVar[int] = 1
    needs_teacher: ClassVar[bool] = True

    def __init__(
        self,
        student: Encoder,
        teacher: Teacher | None,
        embed_dim: int,
        num_images: int = 0,
        *,
        batch_norm: bool = True,
        centre_teacher: bool = False,
        centre_momentum: EmaMomentum = 0.99,
    ) -> None:
        super().__init__(student, teacher, embed_dim, num_images)
        require_width(self.require_teacher(), embed_dim)
        self.batch_norm = batch_norm
        self.centre = RunningCenter(embed_dim, centre_momentum) if centre_teacher else None

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        targets = teacher_rows(self.require_teacher(), batch, (0,), self.centre)[0]
        outputs = self.student.head(self.student.features(batch.views[0]))
        if not self.batch_norm:
            return {"loss": regression_loss(outputs, targets)}
        require_two_images(len(batch.index) * num_processes())
        return {"loss": standardized_regression_loss(outputs, targets)}
