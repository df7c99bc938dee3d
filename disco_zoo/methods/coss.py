"""CoSS (Singh & Wang 2024, arXiv:2409.13939): cosines over samples, and over the columns of the batch matrix.

The rows' cosines ignore how long a row is, and with it where the teacher's manifold lies; the columns' cosines compare
a dimension of both networks over the batch and need the rows as they are, without L2 normalisation.
Read in abstracts and summaries only; batches are random here.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import NonNegativeFloat
from torch import Tensor

from disco_zoo.core.distributed import sum_over_processes_with_grad
from disco_zoo.core.schema import EmaMomentum
from disco_zoo.methods.base import Batch, Method
from disco_zoo.methods.teacher_targets import require_width, teacher_rows
from disco_zoo.models.encoder import Encoder
from disco_zoo.models.teacher import Teacher
from disco_zoo.modules.momentum_contrast import RunningCenter
from disco_zoo.modules.similarity import at_least_float32, row_cosine_loss

_SMALLEST_SQUARE = 1e-16  # a dimension that is zero over the batch has the cosine 0 and no gradient


def column_cosine_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """1 − mean_d cos(S[:, d], T[:, d]), with columns over the joint batch of all processes.

    A column's cosine needs three sums over rows: s·t, s·s and t·t. These are summed over the processes with
    gradient, so that each process has the joint loss, and training with DDP its joint gradient.

    Args:
        student: S (b, D), not normalised, with gradient.
        teacher: T (b, D), not normalised; no gradient flows into it.
    """
    with torch.autocast(student.device.type, enabled=False):
        student, teacher = at_least_float32(student), at_least_float32(teacher.detach())
        products = torch.stack([student * teacher, student.square(), teacher.square()]).sum(dim=1)
        dot, own, theirs = sum_over_processes_with_grad(products)
        norms = own.clamp(min=_SMALLEST_SQUARE).sqrt() * theirs.clamp(min=_SMALLEST_SQUARE).sqrt()
        return 1.0 - (dot / norms).mean()


class CoSS(Method):
    """L = (1 − mean_i cos(s_i, t_i)) + λ · (1 − mean_d cos(S[:, d], T[:, d])); one view, no queue, no twin.

    Args:
        space_weight: λ of the term over columns.
        centre_teacher: subtract a running mean from the teacher's features first. For teachers without an
            SSL head, whose pooled features share one large component.
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
        space_weight: NonNegativeFloat = 1.0,
        centre_teacher: bool = False,
        centre_momentum: EmaMomentum = 0.99,
    ) -> None:
        super().__init__(student, teacher, embed_dim, num_images)
        require_width(self.require_teacher(), embed_dim)
        self.space_weight = space_weight
        self.centre = RunningCenter(embed_dim, centre_momentum) if centre_teacher else None

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        targets = teacher_rows(self.require_teacher(), batch, (0,), self.centre)[0]
        outputs = self.student.head(self.student.features(batch.views[0]))
        rows, columns = row_cosine_loss(outputs, targets), column_cosine_loss(outputs, targets)
        return {"loss": rows + self.space_weight * columns, "rows": rows.detach(), "columns": columns.detach()}
