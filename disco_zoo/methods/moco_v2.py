"""MoCo-v2 (Chen, Fan, Girshick, He 2020, arXiv:2003.04297): the baseline without a teacher.

The loss is `disco_zoo.modules.momentum_contrast.contrastive_loss`; spec 1.1 and 2.1.
"""

from __future__ import annotations

from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from disco_zoo.core.ranges import EmaMomentum
from disco_zoo.methods.base import Method
from disco_zoo.methods.batch import Batch
from disco_zoo.models.encoder import Encoder
from disco_zoo.models.teacher import Teacher
from disco_zoo.modules.momentum_contrast import MomentumContrast


class MoCoV2(Method):
    """Contrast a view with its twin's embedding of the other view against a queue.

    Args:
        temperature: T of InfoNCE.
        queue_size: K, number of negatives.
        momentum: m of the EMA twin, constant.
    """

    def __init__(
        self,
        student: Encoder,
        teacher: Teacher | None,
        embed_dim: int,
        num_images: int = 0,
        *,
        temperature: PositiveFloat = 0.2,
        queue_size: PositiveInt = 65536,
        momentum: EmaMomentum = 0.999,
    ) -> None:
        super().__init__(student, None, embed_dim, num_images)
        self.contrast = MomentumContrast(
            student, embed_dim=embed_dim, queue_size=queue_size, momentum=momentum, temperature=temperature
        )

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        loss = self.contrast.loss(self.student(batch.views[0]), batch.views[1])
        return {"loss": loss, "contrast": loss.detach()}

    def after_step(self) -> None:
        self.contrast.follow(self.student)
