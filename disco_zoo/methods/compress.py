"""CompRess (Abbasi Koohpayegani, Tejankar, Pirsiavash 2020, arXiv:2010.14713): keep the teacher's similarities.

spec 2.7: student and teacher compare the same view with a memory, each in its own space, and the student
learns the teacher's distribution over it. Three ways to fill the student's memory are three names of recipes.
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar, Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from disco_zoo.core.schema import EmaMomentum
from disco_zoo.errors import BadRecipe
from disco_zoo.methods.base import Batch, Method, variant_of
from disco_zoo.models.encoder import Encoder
from disco_zoo.models.teacher import Teacher
from disco_zoo.modules.momentum_contrast import ema_update, ring_memory
from disco_zoo.modules.similarity import at_least_float32
from disco_zoo.teacher_cache.feature_bank import FeatureBank, Preparation, teacher_bank


def similarity_loss(
    student: Tensor,
    teacher: Tensor,
    student_memory: Tensor,
    teacher_memory: Tensor,
    *,
    student_temperature: float,
    teacher_temperature: float,
) -> Tensor:
    """KL(softmax(t·Mtᵀ/τt) ‖ softmax(s·Msᵀ/τs)), a mean over rows (CompRess, equations 1 and 2).

    Args:
        student: (b, Ds), L2-normalised, with gradient.
        teacher: (b, Dt), L2-normalised; no gradient flows into it.
        student_memory: Ms (K, Ds); rows near unit length; without gradient.
        teacher_memory: Mt (K, Dt), its row j is of the same image as that of Ms; without gradient.
        student_temperature, teacher_temperature: τs and τt.
    """
    # At a temperature of 0.04 half precision would move logits by 0.01.
    with torch.autocast(student.device.type, enabled=False):
        student = at_least_float32(student)
        teacher = at_least_float32(teacher.detach())
        student_scores = student @ student_memory.detach().to(student.dtype).T / student_temperature
        teacher_scores = teacher @ teacher_memory.detach().to(teacher.dtype).T / teacher_temperature
        targets = F.log_softmax(teacher_scores, dim=1)
        return F.kl_div(F.log_softmax(student_scores, dim=1), targets, reduction="batchmean", log_target=True)


class Targets(nn.Module):
    """The teacher's side: unit embeddings of a batch, computed or from a cache, and the memory of them.

    Args:
        cached: embeddings of the images under EVAL, computed once, in place of a forward of each view.
        resize_size: shorter side in pixels before the centre crop of the cached images; None for 256 to 224.
        queue_size: K rows of the memory.
        num_images: of the training data; 0 where nobody knows.
    """

    def __init__(
        self, teacher: Teacher, *, cached: bool, resize_size: int | None, queue_size: int, num_images: int
    ) -> None:
        super().__init__()
        if 0 < num_images < queue_size:
            raise BadRecipe(
                f"method.queue_size {queue_size} is larger than the data ({num_images} images). "
                f"Type: --set method.queue_size={num_images}"
            )
        self.teacher, self.cached, self.resize_size = teacher, cached, resize_size
        self.memory = ring_memory(queue_size, teacher.embed_dim)
        self.bank: FeatureBank | None = None

    def prepare(self, preparation: Preparation) -> None:
        if self.cached:
            self.bank = teacher_bank(self.teacher, preparation, kind="embedding", resize_size=self.resize_size)

    def forward(self, batch: Batch) -> Tensor:
        """float32 (b, Dt) of the batch's first views."""
        if self.bank is not None:
            return self.bank.targets(batch.index)
        # Also before `prepare`: who times a step without a run folder pays for a forward.
        return F.normalize(at_least_float32(batch.teacher_embeddings(self.teacher, [0])), dim=1)


class MomentumEncoder(nn.Module):
    """An EMA copy of the student in eval mode but for its BatchNorm layers, which look at the batch."""

    def __init__(self, student: Encoder, momentum: float) -> None:
        super().__init__()
        self.encoder, self.momentum = copy.deepcopy(student).requires_grad_(False), momentum

    def train(self, mode: bool = True) -> MomentumEncoder:
        super().train(False)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.train(mode)
        return self

    @torch.no_grad()
    def forward(self, views: Tensor) -> Tensor:
        embeddings: Tensor = self.encoder(views)
        return embeddings

    def update_ema(self, student: Encoder) -> None:
        """θ_twin ← m·θ_twin + (1−m)·θ_student, parameters only."""
        ema_update(self.encoder, student, self.momentum)


class CompRess(Method):
    """Compare a view with memories of embeddings, in the student's space and in the teacher's.

    Args:
        memory: what the student is compared with: "teacher", the teacher's one memory, to whose width a Linear head
            brings the student; "student", a second memory of its own former embeddings; "momentum", one of the
            embeddings of its EMA twin. Of the last two the widths may differ.
        queue_size: rows of each memory.
        student_temperature, teacher_temperature: of the two distributions.
        momentum: m of the twin, which follows after each step.
        cached_teacher: the teacher's embeddings of the images under EVAL, computed once, instead of a forward.
        cache_resize_size: shorter side in pixels before the centre crop of those; null for the papers' 256 to 224.
    """

    num_views: ClassVar[int] = 1
    own_width: ClassVar[bool] = True
    needs_teacher: ClassVar[bool] = True
    takes_any_batch: ClassVar[bool] = True
    OFFICIAL: ClassVar[dict[str, Any]] = {"optim.last_batch": "keep"}

    def __init__(
        self,
        student: Encoder,
        teacher: Teacher | None,
        embed_dim: int,
        num_images: int = 0,
        *,
        memory: Literal["teacher", "student", "momentum"] = "momentum",
        queue_size: PositiveInt = 128000,
        student_temperature: PositiveFloat = 0.04,
        teacher_temperature: PositiveFloat = 0.04,
        momentum: EmaMomentum = 0.999,
        cached_teacher: bool = False,
        cache_resize_size: PositiveInt | None = None,
    ) -> None:
        super().__init__(student, teacher, embed_dim, num_images)
        frozen = self.require_teacher()
        if memory == "teacher" and frozen.embed_dim != embed_dim:
            raise BadRecipe(
                f"compress_1q compares the student with the teacher's memory: student.embed_dim {embed_dim} must be "
                f"the teacher's {frozen.embed_dim}. Type: --set student.head=linear --set student.embed_dim=null"
            )
        self.targets = Targets(
            frozen, cached=cached_teacher, resize_size=cache_resize_size, queue_size=queue_size, num_images=num_images
        )
        self.twin = MomentumEncoder(student, momentum) if memory == "momentum" else None
        self.memory = None if memory == "teacher" else ring_memory(queue_size, embed_dim)
        self.student_temperature, self.teacher_temperature = student_temperature, teacher_temperature

    def prepare(self, preparation: Preparation) -> None:
        self.targets.prepare(preparation)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        (view, *_), targets = batch.views, self.targets(batch)
        teacher_memory, embeddings = self.targets.memory.snapshot(), self.student(view)
        loss = similarity_loss(
            embeddings,
            targets,
            teacher_memory if self.memory is None else self.memory.snapshot(),
            teacher_memory,
            student_temperature=self.student_temperature,
            teacher_temperature=self.teacher_temperature,
        )
        if self.memory is not None:
            self.memory.write(embeddings if self.twin is None else self.twin(view))
        self.targets.memory.write(targets)
        return {"loss": loss}

    def after_step(self) -> None:
        if self.twin is not None:
            self.twin.update_ema(self.student)


CompRess1q = variant_of(
    CompRess,
    "CompRess1q",
    "One memory. Recipes set `student.head: linear` and, as the paper, `teacher.features: backbone`.",
    decided={"memory": "teacher", "momentum": 0.0},
    own_width=False,
)
CompRess2q = variant_of(
    CompRess,
    "CompRess2q",
    "Two memories. Recipes set `student.head: none`: the embedding is the features, whatever the teacher's width.",
    decided={"memory": "student", "momentum": 0.0},
)
CompRess2qMomentum = variant_of(
    CompRess,
    "CompRess2qMomentum",
    "Two memories and an EMA twin, the authors' main script. Recipes set `student.head: none`.",
    decided={"memory": "momentum"},
)
