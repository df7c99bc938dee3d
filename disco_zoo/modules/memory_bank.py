"""Memory banks that do not start on the unit sphere: CompRess's queues and CRD's banks with one row per image."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from disco_zoo.core.distributed import gather_rows
from disco_zoo.modules.momentum_contrast import FeatureQueue


def uniform_rows(number: int, dim: int) -> Tensor:
    """Rows (number, dim) uniform in ±1/√(dim/3): of unit length on average, but not exactly."""
    bound = 1.0 / math.sqrt(dim / 3)
    return torch.empty(number, dim).uniform_(-bound, bound)


def ring_memory(capacity: int, dim: int) -> FeatureQueue:
    """A queue that starts with uniform rows, as CompRess's memories do (spec 2.7)."""
    memory = FeatureQueue(capacity, dim)
    memory.rows.copy_(uniform_rows(capacity, dim))
    return memory


class IndexedMemory(nn.Module):
    """A row of each image (N, D), found by the image's number (CRD, spec 2.8).

    Score first, then update. All processes hold the same rows.

    Args:
        num_images: N.
        momentum: share of the old row that an update keeps.
    """

    rows: Tensor

    def __init__(self, num_images: int, dim: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("rows", uniform_rows(num_images, dim))

    def snapshot(self) -> Tensor:
        """The rows (N, D) as they are now; a later `update` does not change what was scored against them."""
        return self.rows.clone()

    @torch.no_grad()
    def update(self, index: Tensor, embeddings: Tensor) -> None:
        """Move the rows of images `index` (b,) towards embeddings (b, D): n(m·row + (1−m)·embedding).

        Every process's images take part, in rank order.
        """
        index, embeddings = gather_rows(index), gather_rows(embeddings).to(self.rows.dtype)
        self.rows[index] = F.normalize(self.rows[index].lerp(embeddings, 1 - self.momentum), dim=1)
