"""SwAV (Caron et al. 2020, arXiv:2006.09882): predict one view's cluster from another; learns without a teacher.

spec 2.9. Loss and targets are in `disco_zoo.modules.swapped_prediction`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch import Tensor

from disco_zoo.methods.base import Batch, Method
from disco_zoo.models.encoder import Encoder
from disco_zoo.models.teacher import Teacher
from disco_zoo.modules.multi_crop import embed_views
from disco_zoo.modules.swapped_prediction import SwappedPrediction


class SwAV(Method):
    """Assign the two big views to prototypes and predict the assignments from all other views.

    Small crops (`views.small_views`) are predicted from, never assigned; 0 of them is allowed. Keys are those of
    `SwappedPrediction`, whose defaults are those of the authors' 800-epoch ResNet-50.
    """

    small_views: ClassVar[Literal["no", "optional", "needed"]] = "optional"
    PARTS = (SwappedPrediction,)
    # Q24: the red channel's standard deviation is .228.
    OFFICIAL: ClassVar[dict[str, Any]] = {"student.std": [0.228, 0.224, 0.225]}

    def __init__(
        self, student: Encoder, teacher: Teacher | None, embed_dim: int, num_images: int = 0, **swapped: Any
    ) -> None:
        super().__init__(student, None, embed_dim, num_images)
        self.swapped = SwappedPrediction(embed_dim, self.num_views, **swapped)

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
