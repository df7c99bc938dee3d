"""CRD (Tian, Krishnan, Isola 2020, arXiv:1910.10699) without labels, as a baseline of self-supervised distillation.

spec 2.8. The authors draw negatives from other classes, which needs labels; here they are uniform over all
images (quirk Q22), and neither the label loss nor the KD loss exists.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from disco_zoo.core.distributed import mean_over_processes
from disco_zoo.core.random_streams import stream_generator
from disco_zoo.core.schema import EmaMomentum, section_of
from disco_zoo.errors import BadRecipe
from disco_zoo.methods.base import Batch, Method
from disco_zoo.methods.teacher_targets import teacher_rows
from disco_zoo.models.encoder import Encoder
from disco_zoo.models.teacher import Teacher
from disco_zoo.modules.momentum_contrast import IndexedMemory
from disco_zoo.modules.similarity import at_least_float32
from disco_zoo.teacher_cache.feature_bank import Preparation

EPSILON = 1e-7


def noise_contrastive_loss(
    scores: Tensor, log_normaliser: Tensor | float, num_images: int, temperature: float
) -> Tensor:
    """h of spec 2.8: −Σ log of "drawn from the data or from noise", a mean over rows.

    With g = exp(score/T)/Z and the noise's m·p = m/N, row i contributes
    log[g₀/(g₀ + m/N + ε)] + Σⱼ log[(m/N)/(gⱼ + m/N + ε)] over its m negatives.

    Args:
        scores: (b, 1 + m) inner products, with gradient; column 0 is the positive.
        log_normaliser: log Z.
        num_images: N.
        temperature: T.
    """
    with torch.autocast(scores.device.type, enabled=False):
        log_ratios = at_least_float32(scores) / temperature - log_normaliser
        noise = (scores.shape[1] - 1) / num_images
        # In logarithms: a positive far away at a small temperature would underflow to an infinite loss.
        data = -F.softplus(math.log(noise + EPSILON) - log_ratios[:, 0])
        others = torch.log(noise / (torch.exp(log_ratios[:, 1:]) + noise + EPSILON))
        return -(data + others.sum(dim=1)).mean()


def draw_candidates(index: Tensor, count: int, num_images: int, *key: int) -> Tensor:
    """int64 (b, 1 + count): each image's own number, then numbers uniform over all N images, itself included.

    The draws of an image are a function of `key` and its number, so they do not depend on how a batch is split.
    """
    rows = []
    for number in index.tolist():
        generator = stream_generator("crd", *key, number)
        rows.append(torch.randint(num_images, (1 + count,), generator=generator))
    candidates = torch.stack(rows).to(index.device)
    candidates[:, 0] = index
    return candidates


class ContrastSide(nn.Module):
    """One of the two halves: embeddings of one network against the memory of the other's.

    Args:
        num_images: N.
        dim: D.
        temperature: T.
        momentum: of the memory, which holds the embeddings of `remember`.
    """

    log_normaliser: Tensor

    def __init__(self, num_images: int, dim: int, *, temperature: float, momentum: float) -> None:
        super().__init__()
        self.num_images, self.temperature = num_images, temperature
        self.memory = IndexedMemory(num_images, dim, momentum)
        self.register_buffer("log_normaliser", torch.full((), torch.nan))  # not set yet

    def forward(self, embeddings: Tensor, candidates: Tensor) -> Tensor:
        """The loss of embeddings (b, D) whose positives and negatives are rows `candidates` (b, 1 + m)."""
        with torch.autocast(embeddings.device.type, enabled=False):
            embeddings = at_least_float32(embeddings)
            # All N scores take less memory than the rows of m negatives of each image, which are D times as many.
            scores = (embeddings @ self.memory.snapshot().to(embeddings.dtype).T).gather(1, candidates)
            self._set_normalizer(scores.detach())
        return noise_contrastive_loss(scores, self.log_normaliser, self.num_images, self.temperature)

    def remember(self, index: Tensor, embeddings: Tensor) -> None:
        self.memory.update(index, embeddings.detach())

    def _set_normalizer(self, scores: Tensor) -> None:
        """Z = N · mean(exp(score/T)) of the first joint batch, for good."""
        if self.log_normaliser.isnan():
            mean = mean_over_processes(torch.exp(scores / self.temperature).mean())
            self.log_normaliser.copy_(torch.log(self.num_images * mean))


class CRD(Method):
    """Tell an image's embedding in the other network's memory from those of other images, both ways round.

    The student's embedding is that of its head: recipes set `student.head: linear`, `student.embed_dim: 128` and
    `teacher.features: backbone`. The teacher's features get a Linear of their own, which is trained, too.

    Args:
        temperature: T.
        negatives: m of an image, drawn with replacement.
        memory_momentum: share of the old row that an update keeps.
        distill_weight: β; without another loss it scales the learning rate.
    """

    num_views: ClassVar[int] = 1
    needs_teacher: ClassVar[bool] = True
    needs_index: ClassVar[bool] = True
    OFFICIAL: ClassVar[dict[str, Any]] = {
        "method.distill_weight": 0.8  # β of the CRD row (spec 2.8); Q22's labels have no place here
    }

    step: Tensor

    def __init__(
        self,
        student: Encoder,
        teacher: Teacher | None,
        embed_dim: int,
        num_images: int = 0,
        *,
        temperature: PositiveFloat = 0.07,
        negatives: PositiveInt = 16384,
        memory_momentum: EmaMomentum = 0.5,
        distill_weight: PositiveFloat = 1.0,
    ) -> None:
        super().__init__(student, teacher, embed_dim, num_images)
        if negatives > num_images:
            raise BadRecipe(
                f"method.negatives {negatives} are more than the data ({num_images} images). "
                f"Type: --set method.negatives={max(1, num_images // 2)}"
            )
        self.negatives, self.distill_weight = negatives, distill_weight
        self.teacher_head = nn.Linear(self.require_teacher().embed_dim, embed_dim)
        # Named for what is embedded; each is compared with the memory of the other network's embeddings.
        options = {"temperature": temperature, "momentum": memory_momentum}
        self.student_side = ContrastSide(num_images, embed_dim, **options)
        self.teacher_side = ContrastSide(num_images, embed_dim, **options)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))  # forwards so far: the counter of negatives
        self.seed = 0

    @classmethod
    def faults(cls, values: Mapping[str, Any]) -> list[str]:
        """Repeated images: the memories would hold an image once for each time, and so it would be its own negative."""
        data = section_of(values, "data")
        if data.get("extra_source") is None or data.get("extra_repeats", 1) == 1:
            return []
        return [
            "data.extra_repeats: CRD tells each image from all others, which its copies are not. "
            "Type: --set data.extra_repeats=1"
        ]

    def prepare(self, preparation: Preparation) -> None:
        self.seed = preparation.seed

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        index = batch.index
        students = self.student(batch.views[0])
        rows = teacher_rows(self.require_teacher(), batch, (0,))[0]
        teachers = F.normalize(at_least_float32(self.teacher_head(rows)), dim=1)
        candidates = draw_candidates(index, self.negatives, self.num_images, self.seed, int(self.step))
        self.step += 1
        student_loss = self.student_side(students, candidates)
        teacher_loss = self.teacher_side(teachers, candidates)
        self.student_side.remember(index, teachers)
        self.teacher_side.remember(index, students)
        loss = self.distill_weight * (student_loss + teacher_loss)
        return {"loss": loss, "student": student_loss.detach(), "teacher": teacher_loss.detach()}

    def compared(self, embeddings: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return embeddings, self.teacher_head(targets)
