"""RKD (Park et al. 2019, arXiv:1904.05068) beside momentum contrast, as in DisCo's ablation; alone or with DisCo.

spec 2.3. The relations between the rows of a batch follow the teacher's: distances of pairs, angles of triples.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import NonNegativeFloat
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from disco_zoo.core.distributed import gather_rows, gather_rows_with_grad, rank
from disco_zoo.core.schema import EmaMomentum
from disco_zoo.methods.base import Batch, Method
from disco_zoo.methods.disco import joint_consistency_loss
from disco_zoo.methods.teacher_targets import (
    QueueInit,
    contrast_beside,
    official_weight_faults,
    require_two_images,
    unit_teacher_rows,
)
from disco_zoo.models.encoder import Encoder
from disco_zoo.models.teacher import Teacher
from disco_zoo.modules.momentum_contrast import MomentumContrast, RunningCenter
from disco_zoo.modules.similarity import at_least_float32

SHORTEST = 1e-6  # distance below which two rows count as one: sqrt of the official code's clamp at 1e-12
MAX_ANGLES = 2**24  # angles computed at once, 64 MiB in float32
MAX_DIFFERENCES = 2**27  # numbers of row differences at once, 512 MiB in float32; backward keeps up to three of these


def distance_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over pairs, i = j included, of SmoothL1(D(s)_ij, D(t)_ij), with D the distances over their mean (RKD-D).

    Above `MAX_DIFFERENCES` numbers the (b, b, D) differences are worked off in chunks of rows, which the backward
    pass computes again; what then remains is (b, b).

    Args:
        student: (b, D), L2-normalised, with gradient, also through its own mean distance.
        teacher: (b, D), L2-normalised; no gradient flows into it. b is at least 2.
    """
    with torch.autocast(student.device.type, enabled=False):
        return F.smooth_l1_loss(_relative_distances(student), _relative_distances(teacher.detach()))


def _relative_distances(rows: Tensor) -> Tensor:
    """‖u_i − u_j‖ (b, b), divided by their mean over i ≠ j; the diagonal is exactly 0 and has no gradient."""
    rows = at_least_float32(rows)
    number = len(rows)
    itself = torch.eye(number, dtype=torch.bool, device=rows.device)
    chunks = _chunks(slice(0, number), max(1, MAX_DIFFERENCES // rows.numel()))
    distances = torch.cat([_for_chunk(_distances, chunks, rows, part) for part in chunks])
    distances = distances.clamp(min=SHORTEST).masked_fill(itself, 0.0)
    return distances / (distances.sum() / (number * (number - 1)))


def _distances(rows: Tensor, part: slice) -> Tensor:
    """‖u_i − u_j‖ (v, b) for rows i of `part`."""
    # Differences, not a Gram matrix: that one loses the distances of near rows to rounding.
    return (rows[part, None] - rows[None]).norm(dim=2)


def angle_loss(student: Tensor, teacher: Tensor, vertices: slice = slice(None)) -> Tensor:
    """Mean over triples of SmoothL1(A(s)_ijk, A(t)_ijk), with A_ijk the cosine of the angle at i (RKD-A).

    All triples count, as in the official code; those with i = j or i = k are 0 in both. Two tensors of v·b² numbers
    and three of v·b·D are kept for the backward pass (v vertices, b rows of D numbers): 0.2 GB for 256 rows of 128,
    1.1 GB for 256 of 1280. Above `MAX_ANGLES` numbers of the first kind or `MAX_DIFFERENCES` of the second the
    vertices are worked off in chunks that the backward pass computes again, so memory stays at that of one chunk
    (plus (b, b) and (b, D)); time grows with v·b²·D all the same.

    Args:
        student: (b, D), L2-normalised, with gradient.
        teacher: (b, D), L2-normalised; no gradient flows into it.
        vertices: which rows i are vertices; all by default.
    """
    with torch.autocast(student.device.type, enabled=False):
        student, teacher = at_least_float32(student), at_least_float32(teacher.detach())
        number = len(student)
        chosen = range(number)[vertices]
        at_once = min(MAX_ANGLES // number**2, MAX_DIFFERENCES // max(student.numel(), teacher.numel()))
        chunks = _chunks(slice(chosen.start, chosen.stop), max(1, at_once))
        total = torch.stack([_for_chunk(_sum_over_angles, chunks, student, teacher, part) for part in chunks]).sum()
        return total / (len(chosen) * number**2)


def _chunks(rows: slice, size: int) -> list[slice]:
    return [slice(first, min(first + size, rows.stop)) for first in range(rows.start, rows.stop, size)]


def _for_chunk(function: Callable[..., Tensor], chunks: list[slice], *arguments: Any) -> Tensor:
    """Call it for one of several chunks so that the backward pass computes what lies within again."""
    if len(chunks) == 1:
        return function(*arguments)
    found: Tensor = checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)
    return found


def _sum_over_angles(student: Tensor, teacher: Tensor, vertices: slice) -> Tensor:
    return F.smooth_l1_loss(_angles(student, vertices), _angles(teacher, vertices), reduction="sum")


def _angles(rows: Tensor, vertices: slice) -> Tensor:
    """Cosines (v, b, b) of the angles at each vertex; 0, without gradient, where a leg has no length."""
    legs = rows[vertices, None] - rows[None]
    lengths = legs.norm(dim=2, keepdim=True)
    none = lengths < SHORTEST
    legs = legs.masked_fill(none, 0.0) / lengths.masked_fill(none, 1.0)
    return legs @ legs.transpose(1, 2)


class RKD(Method):
    """L = w_c · InfoNCE + w_D · distances + w_A · angles, of the first view; with w_d > 0 plus DisCo's two terms.

    DisCo's ablation has the rows "RKD" (defaults) and "RKD + DisCo" (distill_weight 32).

    Args:
        contrast: of the contrastive part, the keys of `MomentumContrast`.
        contrast_weight: w_c; 0 leaves the relations alone.
        distance_weight, angle_weight: w_D and w_A.
        distill_weight: w_d of ‖t(x₁) − s(x₁)‖² + ‖t(x₂) − s(x₂)‖², per sample; 0 also saves the second view's forward.
        both_views: with a weight of 0, too, both networks see the second view, which moves BatchNorm's running
            statistics and nothing else: so does the official code.
        distill_reduction: of that term, as in DisCo: "sum" repeats the official code, with a weight of 1.
        relations: "joint" relates the images of all processes, so that results do not depend on how many there are;
            "local" those of each process, as the official code does (32 images).
        centre_teacher: subtract a running mean from the teacher's features first. For teachers without an
            SSL head, whose pooled features share one large component.
        centre_momentum: of that mean, per step.
        queue_init: "teacher" starts the negatives with the queue stored in the teacher's file (Q3); "teacher_if_any"
            also goes on without one.
    """

    needs_teacher: ClassVar[bool] = True
    PARTS = (MomentumContrast,)
    # Q1: teacher left in train mode; Q2: relations and DisCo's sum inside a process's share; Q3: the queue comes with
    # the teacher. The weight is no part of this: it is 0 for RKD alone and 1 with DisCo.
    OFFICIAL: ClassVar[dict[str, Any]] = {
        "teacher.bn_mode": "train",
        "method.relations": "local",
        "method.distill_reduction": "sum",
        "method.both_views": True,
        "method.queue_init": "teacher_if_any",
    }

    def __init__(
        self,
        student: Encoder,
        teacher: Teacher | None,
        embed_dim: int,
        num_images: int = 0,
        *,
        contrast_weight: NonNegativeFloat = 1.0,
        distance_weight: NonNegativeFloat = 1.0,
        angle_weight: NonNegativeFloat = 1.0,
        distill_weight: NonNegativeFloat = 0.0,
        distill_reduction: Literal["mean", "sum"] = "mean",
        both_views: bool = False,
        relations: Literal["joint", "local"] = "joint",
        centre_teacher: bool = False,
        centre_momentum: EmaMomentum = 0.99,
        queue_init: QueueInit = "random",
        **contrast: Any,
    ) -> None:
        super().__init__(student, teacher, embed_dim, num_images)
        self.contrast = contrast_beside(self.require_teacher(), student, embed_dim, queue_init, **contrast)
        self.contrast_weight, self.distill_weight = contrast_weight, distill_weight
        self.both_views = both_views
        self.distance_weight, self.angle_weight = distance_weight, angle_weight
        self.distill_reduction: Literal["mean", "sum"] = distill_reduction
        self.relations: Literal["joint", "local"] = relations
        self.centre = RunningCenter(embed_dim, centre_momentum) if centre_teacher else None

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        seen = (0, 1) if self.distill_weight or self.both_views else (0,)
        targets = unit_teacher_rows(self.require_teacher(), batch, seen, self.centre)
        embeddings = [self.student(batch.views[0])]
        with contextlib.nullcontext() if self.distill_weight else torch.no_grad():
            embeddings += [self.student(batch.views[number]) for number in seen[1:]]
        contrast = self.contrast.loss(embeddings[0], batch.views[1])
        distance, angle = self._relations(embeddings[0], targets[0])
        loss = self.contrast_weight * contrast + self.distance_weight * distance + self.angle_weight * angle
        losses = {"contrast": contrast, "distance": distance, "angle": angle}
        if self.distill_weight:
            losses["distill"] = joint_consistency_loss(embeddings, targets, self.distill_reduction)
            loss = loss + self.distill_weight * losses["distill"]
        return {"loss": loss, **{name: value.detach() for name, value in losses.items()}}

    def compared(self, embeddings: Tensor, targets: Tensor) -> tuple[Tensor, Tensor] | None:
        # Distances and angles leave the student's space turned as it likes.
        return super().compared(embeddings, targets) if self.distill_weight else None

    @classmethod
    def faults(cls, values: Mapping[str, Any]) -> list[str]:
        """The weight that stands for 32 images a process, on top of the sum over them."""
        return official_weight_faults(values, "sum", "sums over a process's images", 1, also=(0,))

    def after_step(self) -> None:
        self.contrast.update_ema(self.student)

    def _relations(self, embeddings: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Distance and angle loss; over the joint batch, each process works on the angles at its own images."""
        own = slice(0, len(embeddings))
        if self.relations == "joint":
            own = slice(rank() * len(embeddings), (rank() + 1) * len(embeddings))
            embeddings, targets = gather_rows_with_grad(embeddings), gather_rows(targets)
        require_two_images(len(embeddings))
        return distance_loss(embeddings, targets), angle_loss(embeddings, targets, own)
