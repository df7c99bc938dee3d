"""SwAV (Caron et al. 2020, arXiv:2006.09882): predict one view's cluster from another; learns without a teacher.

spec 2.9. Loss and targets are `swapped_prediction.py` and `sinkhorn.py` in `disco_zoo.modules`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from disco_zoo.methods.base import Method
from disco_zoo.methods.batch import Batch
from disco_zoo.models.encoder import Encoder
from disco_zoo.models.teacher import Teacher
from disco_zoo.modules.multi_crop import embed_views
from disco_zoo.modules.swapped_prediction import SwappedPrediction


class SwAV(Method):
    """Assign the two big views to prototypes and predict the assignments from all other views.

    Small crops (`views.small_views`) are predicted from, never assigned; 0 of them is allowed. The defaults are
    those of the authors' 800-epoch ResNet-50.

    Args:
        temperature: T of the predictions.
        num_prototypes: P.
        epsilon, sinkhorn_iterations: of the assignments; the smaller ε, the harder they are.
        queue_size: earlier images that take part in the assignments of a small batch, 0 for none; rounded down to a
            multiple of the joint batch, e.g. 3840 to 3584 at 512.
        queue_start_epoch: the first epoch with a queue, counted from 0; it is used once it is full.
        freeze_prototypes_steps: steps at the start in which the prototypes stay as they are.
    """

    small_views: ClassVar[Literal["no", "optional", "needed"]] = "optional"
    # Q24: the red channel's standard deviation is .228.
    OFFICIAL: ClassVar[dict[str, Any]] = {"student.std": [0.228, 0.224, 0.225]}

    def __init__(
        self,
        student: Encoder,
        teacher: Teacher | None,
        embed_dim: int,
        num_images: int = 0,
        *,
        temperature: PositiveFloat = 0.1,
        num_prototypes: PositiveInt = 3000,
        epsilon: PositiveFloat = 0.05,
        sinkhorn_iterations: PositiveInt = 3,
        queue_size: NonNegativeInt = 0,
        queue_start_epoch: NonNegativeInt = 15,
        freeze_prototypes_steps: NonNegativeInt = 313,
    ) -> None:
        super().__init__(student, None, embed_dim, num_images)
        self.swapped = SwappedPrediction(
            embed_dim,
            num_prototypes=num_prototypes,
            num_assigned=self.num_views,
            temperature=temperature,
            epsilon=epsilon,
            sinkhorn_iterations=sinkhorn_iterations,
            queue_size=queue_size,
            queue_start_epoch=queue_start_epoch,
            freeze_prototypes_steps=freeze_prototypes_steps,
        )

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        small_size = self.crops.student_size if self.crops else None
        loss = self.swapped.loss(embed_views(self.student, batch.views, self.num_views, small_size))
        return {"loss": loss, "swapped": loss.detach()}

    def start_epoch(self, epoch: int) -> None:
        self.swapped.start_epoch(epoch)

    def before_step(self) -> None:
        self.swapped.before_step()

    def after_step(self) -> None:
        self.swapped.after_step()
