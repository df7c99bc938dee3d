"""SwAV's swapped prediction: prototypes, and codes by Sinkhorn-Knopp."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from disco_zoo.core.distributed import gather_rows, num_processes, rank
from disco_zoo.errors import BadRecipe
from disco_zoo.modules.similarity import at_least_float32


@torch.no_grad()
def sinkhorn(scores: Tensor, *, epsilon: float, iterations: int) -> Tensor:
    """Soft assignments that spread the joint batch evenly over the prototypes (spec 2.9).

    Q = exp(scores/ε) is scaled `iterations` times: first each prototype's total over the samples of all
    processes to 1/P, then each sample's total over the prototypes to 1/B. Times B, each sample's row sums to 1.
    The scaling is done on logarithms, so that no ε, however small, turns into an overflow or 0/0.

    Args:
        scores: (b, P), similarities of this process's samples and the prototypes.
        epsilon: ε, above 0; the smaller, the harder the assignments.
        iterations: at least 1.

    Returns:
        (b, P), of this process's samples; rows sum to 1. It does not depend on how the joint batch is split, and
        every process must take part.
    """
    with torch.autocast(scores.device.type, enabled=False):
        log_q = at_least_float32(scores) / epsilon
        for _ in range(iterations):
            log_q = log_q - _log_totals_of_prototypes(log_q) - math.log(log_q.shape[1])
            log_q = log_q.log_softmax(dim=1)
        return log_q.exp()


def _log_totals_of_prototypes(log_q: Tensor) -> Tensor:
    """log Σ exp over the samples of all processes, (P,), with each prototype's maximum subtracted."""
    largest, several = log_q.amax(dim=0), num_processes() > 1
    if several:
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    totals = (log_q - largest).exp().sum(dim=0)
    if several:
        dist.all_reduce(totals)
    return largest + totals.log()


def swapped_prediction_loss(scores: Sequence[Tensor], assignments: Sequence[Tensor], temperature: float) -> Tensor:
    """Predict a view's assignment from the other views (SwAV, equation 2; spec 2.9).

    L = mean over assigned views c of the mean over the other views v ≠ c of
        −(1/b) Σ_i Σ_p q_c[i, p] · log softmax(scores_v[i] / T)[p]

    Args:
        scores: V tensors (b, P), similarities of embeddings and prototypes, with gradient.
        assignments: (b, P) of each of the first views, rows sum to 1; no gradient flows into them.
        temperature: T.
    """
    with torch.autocast(scores[0].device.type, enabled=False):
        predictions = [F.log_softmax(at_least_float32(rows) / temperature, dim=1) for rows in scores]
        losses = []
        for crop, targets in enumerate(assignments):
            others = torch.stack([rows for view, rows in enumerate(predictions) if view != crop])
            losses.append(-(targets.detach() * others).sum(dim=2).mean())
        return torch.stack(losses).mean()


class SwappedPrediction(nn.Module):
    """Prototypes, the queue of earlier embeddings, and the loss.

    The assigned views are the big ones, which come first. All state is in parameters and buffers.

    Args:
        embed_dim: D.
        num_assigned: views that are assigned to prototypes.
        temperature: T of the predictions.
        num_prototypes: P.
        epsilon, sinkhorn_iterations: of the assignments; the smaller ε, the harder they are.
        queue_size: earlier images that take part in the assignments of a small batch, 0 for none. What is used of it is
            a multiple of the joint batch, as in the official code: `queue_size` rounded down, e.g. 3840 to 3584 at 512.
        queue_start_epoch: the first epoch with a queue, counted from 0; it is used once it is full.
        freeze_prototypes_steps: steps of the optimiser at the start that leave the prototypes as they are.
    """

    queue: Tensor
    steps: Tensor

    def __init__(
        self,
        embed_dim: int,
        num_assigned: int,
        *,
        temperature: PositiveFloat = 0.1,
        num_prototypes: PositiveInt = 3000,
        epsilon: PositiveFloat = 0.05,
        sinkhorn_iterations: PositiveInt = 3,
        queue_size: NonNegativeInt = 0,
        queue_start_epoch: NonNegativeInt = 15,
        freeze_prototypes_steps: NonNegativeInt = 313,
    ) -> None:
        super().__init__()
        self.prototypes = nn.Linear(embed_dim, num_prototypes, bias=False)
        self.num_assigned, self.temperature = num_assigned, temperature
        self.epsilon, self.sinkhorn_iterations = epsilon, sinkhorn_iterations
        self.queue_size, self.queue_start_epoch = queue_size, queue_start_epoch
        self.freeze_prototypes_steps = freeze_prototypes_steps
        self._queue_is_open = False
        # Newest first. Rows of zeros are free: embeddings have length 1.
        self.register_buffer("queue", torch.zeros(num_assigned, queue_size, embed_dim))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def start_epoch(self, epoch: int) -> None:
        self._queue_is_open = self.queue_size > 0 and epoch >= self.queue_start_epoch

    def before_step(self) -> None:
        """Drop the gradient of frozen prototypes: without one, the optimiser neither moves nor decays them."""
        if self.steps < self.freeze_prototypes_steps:
            self.prototypes.weight.grad = None

    def after_step(self) -> None:
        self.steps += 1

    def loss(self, embeddings: Sequence[Tensor]) -> Tensor:
        """The loss of V views' embeddings (b, D), L2-normalised, the assigned ones first; a mean over images."""
        with torch.no_grad():
            self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))
        with torch.autocast(embeddings[0].device.type, enabled=False):
            scores = [self.prototypes(at_least_float32(rows)) for rows in embeddings]
        assignments = [self._assign(crop, embeddings[crop], scores[crop]) for crop in range(self.num_assigned)]
        return swapped_prediction_loss(scores, assignments, self.temperature)

    @torch.no_grad()
    def _assign(self, crop: int, embeddings: Tensor, scores: Tensor) -> Tensor:
        """Assignments (b, P) among the joint batch and a full queue, which then takes in the embeddings (b, D)."""
        length = self._usable_length(len(embeddings) * num_processes())
        if not (self._queue_is_open and length):
            return sinkhorn(scores, epsilon=self.epsilon, iterations=self.sinkhorn_iterations)
        waiting = self.queue[crop, :length].clone()
        joint = scores
        if waiting[-1].any():
            # Every process brings its share of the queue: Sinkhorn does not mind who brings what.
            share = waiting.chunk(num_processes())[rank()]
            with torch.autocast(scores.device.type, enabled=False):
                joint = torch.cat([self.prototypes(share), scores])
        rows = gather_rows(embeddings).to(self.queue.dtype)
        self.queue[crop, :length] = torch.cat([rows, waiting])[:length]
        return sinkhorn(joint, epsilon=self.epsilon, iterations=self.sinkhorn_iterations)[-len(scores) :]

    def _usable_length(self, joint_batch: int) -> int:
        length = self.queue_size - self.queue_size % joint_batch
        if self.queue_size and not length:
            raise BadRecipe(
                f"method.queue_size {self.queue_size} is smaller than a batch of {joint_batch} images. "
                f"Type: --set method.queue_size={joint_batch}, or 0 for no queue"
            )
        return length
