"""SEED (Fang et al. 2021, arXiv:2101.04731): the student's similarities to a queue follow the teacher's.

spec 2.4 and 2.5. One view of each image goes through both networks; the queue holds teacher embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from disco_zoo.core.schema import EmaMomentum
from disco_zoo.methods.base import Batch, Method, SmallViews
from disco_zoo.methods.teacher_targets import joint_teacher_rows, require_width
from disco_zoo.models.encoder import Encoder
from disco_zoo.models.teacher import Teacher
from disco_zoo.modules.momentum_contrast import FeatureQueue, RunningCenter
from disco_zoo.modules.similarity import at_least_float32


def similarity_distillation_loss(
    student: Tensor, teacher: Tensor, queue: Tensor, student_temperature: float, teacher_temperature: float
) -> Tensor:
    """Cross-entropy of the teacher's and the student's distribution over [t_i, queue].

        z_s = [s_i · t_i, s_i · queue] / τ_s    z_t = [t_i · t_i, t_i · queue] / τ_t
        L = −mean_i Σ_j softmax(z_t)_j log softmax(z_s)_j

    Args:
        student: s (b, D), L2-normalised, with gradient.
        teacher: t (b, D), L2-normalised; no gradient flows into it.
        queue: (K, D), L2-normalised teacher embeddings of earlier images.
        student_temperature, teacher_temperature: τ_s, τ_t.
    """
    with torch.autocast(student.device.type, enabled=False):
        student, teacher = at_least_float32(student), at_least_float32(teacher.detach())
        queue = queue.detach().to(teacher.dtype)
        own = [(rows * teacher).sum(dim=1, keepdim=True) for rows in (student, teacher)]
        student_logits = torch.cat([own[0], student @ queue.T], dim=1) / student_temperature
        teacher_logits = torch.cat([own[1], teacher @ queue.T], dim=1) / teacher_temperature
        return F.cross_entropy(student_logits, teacher_logits.softmax(dim=1))


class _Anchors(nn.Module):
    """The queue that views of one size are compared with, and the centre of the teacher's features at that size."""

    def __init__(self, queue_size: int, embed_dim: int, centre_momentum: float | None) -> None:
        super().__init__()
        self.queue = FeatureQueue(queue_size, embed_dim)
        self.centre = None if centre_momentum is None else RunningCenter(embed_dim, centre_momentum)


class SEED(Method):
    """L = CE(teacher's, student's similarities), for the big views; with small crops, plus the same for these.

    The teacher may be of any kind; the paper's have an SSL head. Small crops go through each network in one batch,
    have a queue of their own, and leave one key an image in it: that of the first crop. Both terms weigh 1.

    Args:
        student_temperature: τ_s.
        teacher_temperature: τ_t. At 0.01 the teacher's distribution is spread over near neighbours; the authors'
            code has 1e-4, which makes it one-hot: SEED is then InfoNCE with the teacher's embedding as positive (Q9).
        queue_size: K.
        centre_teacher: subtract a running mean from the teacher's features first. For teachers without an
            SSL head, whose pooled features share one large component.
        centre_momentum: of that mean, per step.
    """

    num_views: ClassVar[int] = 1
    small_views: ClassVar[Literal["no", "optional", "needed"]] = "optional"
    needs_teacher: ClassVar[bool] = True
    # Q9: the teacher's temperature. Q10, the schedule, is `optim.schedule: seed_official`: each recipe names its own.
    OFFICIAL: ClassVar[dict[str, Any]] = {"method.teacher_temperature": 1e-4}

    def __init__(
        self,
        student: Encoder,
        teacher: Teacher | None,
        embed_dim: int,
        num_images: int = 0,
        *,
        student_temperature: PositiveFloat = 0.2,
        teacher_temperature: PositiveFloat = 0.01,
        queue_size: PositiveInt = 65536,
        centre_teacher: bool = False,
        centre_momentum: EmaMomentum = 0.99,
    ) -> None:
        super().__init__(student, teacher, embed_dim, num_images)
        require_width(self.require_teacher(), embed_dim)
        self.student_temperature, self.teacher_temperature = student_temperature, teacher_temperature
        self.queue_size, self.centre_momentum = queue_size, centre_momentum if centre_teacher else None
        self.big = self._anchors()
        self.small: _Anchors | None = None
        self._crops: SmallViews | None = None

    @property
    def crops(self) -> SmallViews | None:
        return self._crops

    @crops.setter
    def crops(self, crops: SmallViews | None) -> None:
        """The small crops' queue is made with them: at 65536 rows it would be a waste where there are none."""
        self._crops = crops
        self.small = None if crops is None else self._anchors().to(self.big.queue.rows.device)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        loss = self._loss(batch, (0,), self.big)
        if self.crops is None or self.small is None:
            return {"loss": loss}
        crops = range(1, len(batch.views))
        small = self._loss(batch, crops, self.small, self.crops.student_size, self.crops.teacher_size)
        return {"loss": loss + small, "big": loss.detach(), "small": small.detach()}

    def _loss(
        self,
        batch: Batch,
        numbers: Sequence[int],
        anchors: _Anchors,
        student_size: int | None = None,
        teacher_size: int | None = None,
    ) -> Tensor:
        """The loss of the views `numbers`, seen at the two sizes in one batch; the first of them enters the queue."""
        rows = joint_teacher_rows(self.require_teacher(), batch, numbers, anchors.centre, teacher_size)
        targets = F.normalize(rows, dim=1)
        loss = similarity_distillation_loss(
            self.student(torch.cat([batch.views[number] for number in numbers]), student_size),
            targets,
            anchors.queue.snapshot(),
            self.student_temperature,
            self.teacher_temperature,
        )
        anchors.queue.write(targets[: len(batch.index)])
        return loss

    def _anchors(self) -> _Anchors:
        return _Anchors(self.queue_size, self.embed_dim, self.centre_momentum)
