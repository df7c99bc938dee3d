"""Shi et al. 2021, arXiv:2107.14762: what small networks need to learn without a teacher's signal.

MoCo-v2 with a lower temperature, stronger views, a wider head and a larger batch; spec 2.12. The loss is
`disco_zoo.modules.momentum_contrast.contrastive_loss`.
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


class SslSmall(Method):
    """Contrast a view with its twin's embedding of the other view against a queue, at temperature 0.1.

    The authors' best figures start from a network that SEED has distilled for a few epochs, so that a teacher takes
    part after all. That start is a switch outside the method: `student.init: checkpoint` with `student.init_from`;
    a figure with it and one without are different results, and a table needs both. As in their runs the head starts
    afresh, since theirs is twice as wide as SEED's. Unlike in their runs so does the queue: SEED's holds a teacher's
    embeddings, which the first queue_size / batch_size steps (128 of two million) would replace.

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
        temperature: PositiveFloat = 0.1,
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
