"""Momentum contrast: momentum encoder, queue, memory bank, contrastive loss."""

from __future__ import annotations

import copy
import math

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from disco_zoo.core.distributed import gather_rows, mean_over_processes, shuffle_rows, unshuffle_rows
from disco_zoo.core.schema import EmaMomentum
from disco_zoo.modules.similarity import at_least_float32


def projection_head(
    in_features: int, hidden_features: int | None, out_features: int, *, batch_norm: bool = False
) -> nn.Sequential:
    """Linear, ReLU, Linear (MoCo-v2; DisCo's student uses a hidden width of 2048); one Linear without hidden.

    Args:
        batch_norm: also in front of the ReLU (SwAV, SimCLR).
    """
    if hidden_features is None:
        return nn.Sequential(nn.Linear(in_features, out_features))
    norm = [nn.BatchNorm1d(hidden_features)] if batch_norm else []
    first, last = nn.Linear(in_features, hidden_features), nn.Linear(hidden_features, out_features)
    return nn.Sequential(first, *norm, nn.ReLU(inplace=True), last)


@torch.no_grad()
def ema_update(twin: nn.Module, online: nn.Module, momentum: float) -> None:
    """θ_twin ← m·θ_twin + (1−m)·θ_online, parameters only: BatchNorm statistics of the twin are its own."""
    targets = [p.data for p in twin.parameters()]
    sources = [p.data for p in online.parameters()]
    torch._foreach_lerp_(targets, sources, 1.0 - momentum)


class FeatureQueue(nn.Module):
    """A ring of the last K embeddings, L2-normalised rows (K, D); it starts with random unit rows.

    Score first, then write: a sample then never meets itself. All state is in buffers, so a checkpoint
    holds it and a resumed run goes on with the same negatives.
    """

    rows: Tensor
    position: Tensor

    def __init__(self, capacity: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("rows", F.normalize(torch.randn(capacity, dim), dim=1))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))

    def snapshot(self) -> Tensor:
        """The rows (K, D) as they are now; a later `write` does not change what was scored against them."""
        return self.rows.clone()

    @torch.no_grad()
    def write(self, keys: Tensor) -> None:
        """Write this process's rows (b, D), joined over processes in rank order, wrapping around the end."""
        joint = gather_rows(keys).to(self.rows.dtype)[-len(self.rows) :]
        slots = (self.position + torch.arange(len(joint), device=joint.device)) % len(self.rows)
        self.rows[slots] = joint
        self.position.copy_((self.position + len(joint)) % len(self.rows))


def contrastive_loss(queries: Tensor, keys: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """InfoNCE with the key as positive and a queue as negatives (MoCo, equation 1), a mean over rows.

    Args:
        queries: (b, D), L2-normalised, with gradient.
        keys: (b, D), L2-normalised; row i is the positive of query i.
        negatives: (K, D), L2-normalised.
        temperature: divides the similarities.
    """
    # Similarities at small temperatures lose too much in half precision.
    with torch.autocast(queries.device.type, enabled=False):
        queries, keys, negatives = (at_least_float32(rows) for rows in (queries, keys, negatives))
        positive = (queries * keys).sum(dim=1, keepdim=True)
        logits = torch.cat([positive, queries @ negatives.T], dim=1) / temperature
        target = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
        return F.cross_entropy(logits, target)


class MomentumContrast(nn.Module):
    """MoCo's machinery around an online encoder: EMA twin, queue and contrastive loss (He et al. 2020).

    Args:
        encoder: the online encoder; its twin starts as an exact copy.
        embed_dim: D.
        temperature: T of InfoNCE.
        queue_size: K, number of negatives.
        momentum: m of the EMA twin, constant.
    """

    def __init__(
        self,
        encoder: nn.Module,
        embed_dim: int,
        *,
        temperature: PositiveFloat = 0.2,
        queue_size: PositiveInt = 65536,
        momentum: EmaMomentum = 0.999,
    ) -> None:
        super().__init__()
        self.twin = copy.deepcopy(encoder).requires_grad_(False)
        self.queue = FeatureQueue(queue_size, embed_dim)
        self.momentum, self.temperature = momentum, temperature

    def loss(self, queries: Tensor, key_views: Tensor) -> Tensor:
        """Contrast queries (b, D) with the twin's keys of the other views, then put the keys into the queue."""
        with torch.no_grad():
            share, permutation = shuffle_rows(key_views)
            keys = unshuffle_rows(self.twin(share), permutation)
        loss = contrastive_loss(queries, keys, self.queue.snapshot(), self.temperature)
        self.queue.write(keys)
        return loss

    def update_ema(self, encoder: nn.Module) -> None:
        """Update the momentum encoder; after the optimizer's step this is MoCo's update before the next key."""
        ema_update(self.twin, encoder, self.momentum)


class RunningCenter(nn.Module):
    """Subtract a running mean from feature rows (b, D), so that a shared component does not swamp differences.

    ImageNet classifiers pool features behind a ReLU: all of them point into one orthant, and two images
    already have a high cosine. The mean is averaged over processes and kept in the checkpoint.
    """

    mean: Tensor
    started: Tensor

    def __init__(self, dim: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def update(self, features: Tensor) -> None:
        batch_mean = mean_over_processes(at_least_float32(features).mean(dim=0))
        weight = torch.where(self.started, 1.0 - self.momentum, 1.0)
        self.mean.lerp_(batch_mean, weight)
        self.started.fill_(True)

    def forward(self, features: Tensor) -> Tensor:
        return features - self.mean


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
