"""BINGO (Xu et al. 2022, arXiv:2107.01691): an image and its neighbour in the teacher's eyes pull each other close.

spec 2.6. Bags come from the teacher's features under EVAL (`bingo_bags.py`); the "key encoder" is the frozen
teacher, so there is no EMA. CutMix (Yun et al. 2019, arXiv:1905.04899) puts a box of one image into another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn import functional as F

from disco_zoo.core.distributed import rank, shuffle_rows, unshuffle_rows
from disco_zoo.core.files import user_path
from disco_zoo.core.random_streams import stream_seed
from disco_zoo.core.schema import Probability, section_of
from disco_zoo.errors import BadRecipe
from disco_zoo.methods.base import Batch, Method
from disco_zoo.methods.bingo_bags import BagCompanions, bags_from_file, teacher_bags
from disco_zoo.methods.teacher_targets import require_width
from disco_zoo.models.encoder import Encoder
from disco_zoo.models.teacher import Teacher
from disco_zoo.modules.momentum_contrast import FeatureQueue
from disco_zoo.modules.similarity import at_least_float32
from disco_zoo.teacher_cache.feature_bank import Preparation


@dataclass(frozen=True)
class Box:
    """Rows `top` to `bottom` and columns `left` to `right`, in pixels, ends excluded."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def area(self) -> int:
        return (self.bottom - self.top) * (self.right - self.left)


def draw_box(side: int, alpha: float, *key: int) -> Box:
    """A box in an image of `side` pixels: area 1−λ of it before clipping, λ ~ Beta(alpha, alpha), centre uniform.

    The box is a function of `key` alone, so a resumed run and every process of a run draw the same one.
    """
    generator = np.random.Generator(np.random.PCG64(stream_seed("cutmix", *key)))
    half = int(side * np.sqrt(1.0 - generator.beta(alpha, alpha))) // 2
    row, column = (int(centre) for centre in generator.integers(0, side, 2))
    return Box(max(row - half, 0), min(row + half, side), max(column - half, 0), min(column + half, side))


def cut_mix(views: Tensor, others: Tensor, box: Box) -> tuple[Tensor, float]:
    """Put `box` of others (b, 3, S, S) into views (b, 3, S, S); also the share of `views` that is left."""
    mixed = views.clone()
    mixed[..., box.top : box.bottom, box.left : box.right] = others[..., box.top : box.bottom, box.left : box.right]
    return mixed, 1.0 - box.area / (views.shape[-1] * views.shape[-2])


DEFAULT_SWITCH_EPOCH = 11


def weighted_info_nce(
    anchors: Tensor, keys: tuple[Tensor, Tensor], weights: tuple[float, float], negatives: Tensor, temperature: float
) -> Tensor:
    """w₀·ℓ(a; c₀) + w₁·ℓ(a; c₁), where ℓ(a; c) = −log softmax([a·c, a·Queue]/T)₀, a mean over rows.

    Args:
        anchors: (b, D), L2-normalised, with gradient.
        keys: c₀ and c₁, (b, D), L2-normalised; row i of each is a positive of anchor i.
        weights: w₀ and w₁.
        negatives: (K, D), L2-normalised.
        temperature: T.
    """
    with torch.autocast(anchors.device.type, enabled=False):
        anchors = at_least_float32(anchors)
        # One scoring of the queue serves both positives.
        others = torch.logsumexp(anchors @ negatives.detach().to(anchors.dtype).T / temperature, dim=1)
        loss = anchors.new_zeros(())
        for key, weight in zip(keys, weights, strict=True):
            positive = (anchors * key.detach().to(anchors.dtype)).sum(dim=1) / temperature
            loss = loss + weight * (torch.logaddexp(positive, others) - positive).mean()
        return loss


def bingo_loss(
    students: tuple[Tensor, Tensor, Tensor],
    keys: tuple[Tensor, Tensor],
    negatives: Tensor,
    *,
    kept: float,
    weights: tuple[float, float],
    temperature: float,
) -> Tensor:
    """(L_i + L_j + L_m) / 3 of spec 2.6, a mean over rows.

    Args:
        students: embeddings (b, D) of the image's query view, its companion's, and the mixed one.
        keys: the teacher's embeddings k_i and k_j (b, D) of the image and its companion.
        negatives: (K, D). All of these are L2-normalised.
        kept: λ, the share of the mixed view that is of the image.
        weights: (w₀, w₁) of the own key and of the companion's.
        temperature: T.
    """
    image, companion, mixed = students
    own, other = keys
    terms = (
        weighted_info_nce(image, (own, other), weights, negatives, temperature),
        weighted_info_nce(companion, (other, own), weights, negatives, temperature),
        weighted_info_nce(mixed, (own, other), (kept, 1.0 - kept), negatives, temperature),
    )
    return (terms[0] + terms[1] + terms[2]) / 3


class BINGO(Method):
    """Contrast an image, a neighbour of it and a mixture of both with the teacher's embeddings of the two.

    Args:
        temperature: T of InfoNCE.
        queue_size: K, number of the teacher's keys that are negatives.
        bag_size: neighbours of an image among which its companion is drawn.
        bags: a bag file of an earlier run with the same teacher and images; null builds the bags.
        bag_resize_size: shorter side in pixels before the teacher's centre crop while bags are built; null for the
            papers' 256 to 224.
        switch_epoch: first epoch in which companions' keys count; before it the weights are (1, 0).
        companion_weight: w₁ from then on; w₀ = 1 − w₁.
        cutmix_alpha: λ ~ Beta(α, α).
        cutmix_box: "batch" draws one box for the joint batch, the same on any number of processes; "process" one
            for each process, as the official code does.
    """

    num_views: ClassVar[int] = 2
    takes_companions: ClassVar[bool] = True
    needs_teacher: ClassVar[bool] = True
    needs_index: ClassVar[bool] = True
    OFFICIAL: ClassVar[dict[str, Any]] = {
        "teacher.bn_mode": "train",  # Q1: nothing calls eval; with shuffle-BN
        "method.cutmix_box": "process",  # spec 2.6: one λ and one box for each process's batch
    }

    step: Tensor

    def __init__(
        self,
        student: Encoder,
        teacher: Teacher | None,
        embed_dim: int,
        num_images: int = 0,
        *,
        temperature: PositiveFloat = 0.2,
        queue_size: PositiveInt = 65536,
        bag_size: PositiveInt = 5,
        bags: str | None = None,
        bag_resize_size: PositiveInt | None = None,
        switch_epoch: NonNegativeInt = DEFAULT_SWITCH_EPOCH,
        companion_weight: Probability = 0.5,
        cutmix_alpha: PositiveFloat = 2.0,
        cutmix_box: Literal["batch", "process"] = "batch",
    ) -> None:
        super().__init__(student, teacher, embed_dim, num_images)
        require_width(self.require_teacher(), embed_dim)
        if 0 < num_images <= bag_size:
            raise BadRecipe(
                f"method.bag_size {bag_size} needs more than {bag_size} images, there are {num_images}. "
                f"Type: --set method.bag_size={max(1, num_images - 1)}"
            )
        self.temperature, self.bag_size, self.bags, self.bag_resize_size = temperature, bag_size, bags, bag_resize_size
        self.switch_epoch, self.companion_weight = switch_epoch, companion_weight
        self.cutmix_alpha, self.cutmix_box = cutmix_alpha, cutmix_box
        self.queue = FeatureQueue(queue_size, embed_dim)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))  # forwards so far: the counter of the boxes
        self.seed = 0
        self.weights = (1.0, 0.0)
        self.start_epoch(0)

    @classmethod
    def faults(cls, values: Mapping[str, Any]) -> list[str]:
        """A switch that no epoch reaches: companions' keys would be computed and never count."""
        method, epochs = section_of(values, "method"), section_of(values, "optim").get("epochs")
        switch, weight = method.get("switch_epoch", DEFAULT_SWITCH_EPOCH), method.get("companion_weight", 0.5)
        if type(epochs) is not int or type(switch) is not int or weight == 0 or not 1 <= epochs <= switch:
            return []
        return [
            f"method.switch_epoch: {switch} is never reached in {epochs} epochs, so companions would not count. "
            f"Type: --set method.switch_epoch={epochs // 2}, or to leave them out --set method.companion_weight=0"
        ]

    def prepare(self, preparation: Preparation) -> None:
        teacher = self.require_teacher()
        if self.bags is None:
            bags = teacher_bags(teacher, preparation, bag_size=self.bag_size, resize_size=self.bag_resize_size)
        else:
            bags = bags_from_file(user_path(self.bags), teacher, preparation, bag_size=self.bag_size)
        self.seed = preparation.seed
        self.companions = BagCompanions(bags, preparation.seed)

    def start_epoch(self, epoch: int) -> None:
        other = self.companion_weight if epoch >= self.switch_epoch else 0.0
        self.weights = (1.0 - other, other)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        query, _, other_query, _ = batch.views
        mixed, kept = self._mix(query, other_query)
        keys = (self._keys(batch, 1), self._keys(batch, 3))
        students = (self.student(query), self.student(other_query), self.student(mixed))
        loss = bingo_loss(
            students, keys, self.queue.snapshot(), kept=kept, weights=self.weights, temperature=self.temperature
        )
        self.queue.write(keys[0])
        return {"loss": loss, "kept": loss.new_tensor(kept)}

    def _mix(self, views: Tensor, others: Tensor) -> tuple[Tensor, float]:
        own = (rank(),) if self.cutmix_box == "process" else ()
        box = draw_box(views.shape[-1], self.cutmix_alpha, self.seed, int(self.step), *own)
        self.step += 1
        return cut_mix(views, others, box)

    def _keys(self, batch: Batch, number: int) -> Tensor:
        """The teacher's unit embeddings (b, D) of a view, by shuffle-BN where its BatchNorm looks at the batch."""
        teacher = self.require_teacher()
        if teacher.bn_mode == "eval":
            return F.normalize(at_least_float32(batch.teacher_embeddings(teacher, [number])), dim=1)
        share, permutation = shuffle_rows(batch.views[number])
        return unshuffle_rows(F.normalize(at_least_float32(teacher(share)), dim=1), permutation)
