"""Sinkhorn-Knopp over processes: SwAV's assignments of samples to prototypes (Caron et al. 2020, section 3.1)."""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
from torch import Tensor

from disco_zoo.core.distributed import num_processes
from disco_zoo.core.precision import at_least_float32


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
