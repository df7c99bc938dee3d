"""MoCo-v2 (Chen, Fan, Girshick, He 2020, arXiv:2003.04297), the baseline without a teacher; and ssl-small.

The loss is `disco_zoo.modules.momentum_contrast.contrastive_loss`; spec 1.1, 2.1 and 2.12.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from disco_zoo.methods.base import Batch, Method, variant_of
from disco_zoo.models.encoder import Encoder
from disco_zoo.models.teacher import Teacher
from disco_zoo.modules.momentum_contrast import MomentumContrast


class MoCoV2(Method):
    """Contrast a view with its twin's embedding of the other view against a queue; keys are `MomentumContrast`'s."""

    PARTS = (MomentumContrast,)

    def __init__(
        self, student: Encoder, teacher: Teacher | None, embed_dim: int, num_images: int = 0, **contrast: Any
    ) -> None:
        super().__init__(student, None, embed_dim, num_images)
        self.contrast = MomentumContrast(student, embed_dim, **contrast)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        loss = self.contrast.loss(self.student(batch.views[0]), batch.views[1])
        return {"loss": loss, "contrast": loss.detach()}

    def after_step(self) -> None:
        self.contrast.update_ema(self.student)


SslSmall = variant_of(
    MoCoV2,
    "SslSmall",
    """Shi et al. 2021, arXiv:2107.14762: MoCo-v2 at a lower temperature; views, head and batch are the recipe's.

    The authors' best figures start from a network that SEED has distilled for a few epochs, so that a teacher takes
    part after all. That start is a switch outside the method: `student.init: checkpoint` with `student.init_from`;
    a figure with it and one without are different results, and a table needs both. As in their runs the head starts
    afresh, since theirs is twice as wide as SEED's. Unlike in their runs so does the queue: SEED's holds a teacher's
    embeddings, which the first queue_size / batch_size steps (128 of two million) would replace.
    """,
    defaults={"temperature": 0.1},
)
