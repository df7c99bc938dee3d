"""DisCo on SwAV (Gao et al. 2021, arXiv:2104.09124, table 5): SwAV plus embeddings close to a SwAV teacher's.

spec 2.10, with the decision it recommends (quirk Q7). The SwAV part is
`disco_zoo.modules.swapped_prediction.swapped_prediction_loss`. `preset: official` repeats the authors' code instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import NonNegativeFloat
from torch import Tensor
from torch.nn import functional as F

from disco_zoo.core.schema import EmaMomentum
from disco_zoo.methods.base import Batch, Method
from disco_zoo.methods.teacher_targets import official_weight_faults, require_width
from disco_zoo.models.encoder import Encoder
from disco_zoo.models.teacher import Teacher
from disco_zoo.modules.momentum_contrast import RunningCenter
from disco_zoo.modules.multi_crop import embed_views
from disco_zoo.modules.similarity import at_least_float32
from disco_zoo.modules.swapped_prediction import SwappedPrediction

Reduction = Literal["mean", "mean_elements"]


def view_consistency_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], reduction: Reduction) -> Tensor:
    """‖t − s‖² of each row of V views, averaged over rows and views; "mean_elements" divides it by D as well.

    Args:
        student: V tensors (b, D), with gradient.
        teacher: V tensors (b, D); no gradient flows into them.
    """
    rows, targets = torch.cat(list(student)), torch.cat(list(teacher))
    with torch.autocast(rows.device.type, enabled=False):
        squared = (at_least_float32(targets.detach()) - at_least_float32(rows)).pow(2)
        return squared.mean() if reduction == "mean_elements" else squared.sum(dim=1).mean()


class DisCoSwAV(Method):
    """L = SwAV(s) + w_d · mean over all views of ‖t(x_v) − s(x_v)‖².

    Args:
        swapped: of the SwAV part, the keys of `SwappedPrediction`.
        distill_weight: w_d, per view of an image.
        distill_reduction: "mean" over rows of the sum over the D numbers; "mean_elements" over those as well.
        normalise_teacher: bring the teacher's embeddings to length 1, as the student's are.
        centre_teacher: subtract a running mean from the teacher's embeddings first. For teachers without an SSL
            head, whose pooled features share one large component.
        centre_momentum: of that mean, per step.
    """

    small_views: ClassVar[Literal["no", "optional", "needed"]] = "optional"
    needs_teacher: ClassVar[bool] = True
    PARTS = (SwappedPrediction,)
    # Q7: the teacher's embeddings as they are, the mean over all numbers, halved with SwAV's sum over two views.
    # Q24: the red channel's standard deviation is .228, for both networks; of a teacher with ImageNet's alone.
    OFFICIAL: ClassVar[dict[str, Any]] = {
        "method.normalise_teacher": False,
        "method.distill_reduction": "mean_elements",
        "method.distill_weight": 0.5,
        "student.std": [0.228, 0.224, 0.225],
        "teacher.std": [0.228, 0.224, 0.225],
    }

    def __init__(
        self,
        student: Encoder,
        teacher: Teacher | None,
        embed_dim: int,
        num_images: int = 0,
        *,
        distill_weight: NonNegativeFloat = 1.0,
        distill_reduction: Reduction = "mean",
        normalise_teacher: bool = True,
        centre_teacher: bool = False,
        centre_momentum: EmaMomentum = 0.99,
        **swapped: Any,
    ) -> None:
        super().__init__(student, teacher, embed_dim, num_images)
        self.swapped = SwappedPrediction(embed_dim, self.num_views, **swapped)
        self.distill_weight, self.normalise_teacher = distill_weight, normalise_teacher
        self.distill_reduction: Reduction = distill_reduction
        self.centre = RunningCenter(embed_dim, centre_momentum) if centre_teacher else None
        require_width(self.require_teacher(), embed_dim)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        targets = self._targets(batch)
        embeddings = embed_views(
            self.student, batch.views, self.num_views, self.crops.student_size if self.crops else None
        )
        swapped = self.swapped.loss(embeddings)
        distill = view_consistency_loss(embeddings, targets, self.distill_reduction)
        loss = swapped + self.distill_weight * distill
        return {"loss": loss, "swapped": swapped.detach(), "distill": distill.detach()}

    @classmethod
    def faults(cls, values: Mapping[str, Any]) -> list[str]:
        """The weight that stands for 32 images a process, with the mean over all numbers."""
        return official_weight_faults(values, "mean_elements", "averages over all numbers", 0.5, also=(0,))

    def start_epoch(self, epoch: int) -> None:
        self.swapped.start_epoch(epoch)

    def before_step(self) -> None:
        self.swapped.before_step()

    def after_step(self) -> None:
        self.swapped.after_step()

    def _targets(self, batch: Batch) -> list[Tensor]:
        teacher, small = self.require_teacher(), range(self.num_views, len(batch.views))
        targets = list(batch.teacher_embeddings(teacher, range(self.num_views)).chunk(self.num_views))
        if self.crops:
            targets += batch.teacher_embeddings(teacher, small, self.crops.teacher_size).chunk(len(small))
        if self.centre is not None:
            self.centre.update(torch.cat(targets))
            targets = [self.centre(rows) for rows in targets]
        return [F.normalize(at_least_float32(rows), dim=1) for rows in targets] if self.normalise_teacher else targets
