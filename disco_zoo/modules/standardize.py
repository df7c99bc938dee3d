"""Standardizes feature dimensions to mean 0 and variance 1, by statistics of the joint batch or by running ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from disco_zoo.core.distributed import mean_over_processes, num_processes, sum_over_processes_with_grad
from disco_zoo.modules.similarity import at_least_float32

BATCH_EPSILON = 1e-5  # BatchNorm's, added to the variance
RUNNING_EPSILON = 1e-4  # as a share of the variances' mean: so a dead dimension is not blown up


def standardize_batch(rows: Tensor) -> Tensor:
    """Rows (b, D) with each dimension at mean 0 and variance 1 over the joint batch: BatchNorm without parameters.

    Gradients pass through the statistics.
    """
    with torch.autocast(rows.device.type, enabled=False):
        rows = at_least_float32(rows)
        number = len(rows) * num_processes()
        centered = rows - sum_over_processes_with_grad(rows.sum(dim=0)) / number
        variance = sum_over_processes_with_grad(centered.pow(2).sum(dim=0)) / number
        return centered * (variance + BATCH_EPSILON).rsqrt()


class RunningStandardizer(nn.Module):
    """Standardise the dimensions of feature rows (b, D) with running statistics, for targets of a frozen network.

    A foundation model's dimensions differ in scale by orders of magnitude: without this a handful of them decides
    every cosine. Mean and variance are those of the joint batches so far, with the weights of an exponential
    average; until 1 / (1 − momentum) updates have been made, the plain average over all rows. State is in buffers.

    Args:
        dim: D.
        momentum: of the average, per update.
    """

    mean: Tensor
    variance: Tensor
    updates: Tensor

    def __init__(self, dim: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("variance", torch.ones(dim))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, rows: Tensor) -> None:
        """Take in this process's rows (b, D), averaged over processes with equally many."""
        rows = rows.to(self.mean.dtype)
        batch_mean = mean_over_processes(rows.mean(dim=0))
        batch_variance = mean_over_processes((rows - batch_mean).pow(2).mean(dim=0))
        weight = torch.clamp(1.0 / (self.updates + 1.0), min=1.0 - self.momentum)
        # The variance of a mixture: within the two parts, and between their means.
        between = weight * (1.0 - weight) * (batch_mean - self.mean).pow(2)
        self.variance.lerp_(batch_variance, weight).add_(between)
        self.mean.lerp_(batch_mean, weight)
        self.updates += 1

    def forward(self, rows: Tensor) -> Tensor:
        scale = (self.variance + RUNNING_EPSILON * self.variance.mean()).clamp(min=torch.finfo(self.mean.dtype).tiny)
        return (rows - self.mean) * scale.rsqrt()
