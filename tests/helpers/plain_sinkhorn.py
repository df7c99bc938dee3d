"""Sinkhorn-Knopp written out number by number."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def scores_of(samples: int, prototypes: int, seed: int = 0) -> Tensor:
    """Cosines in [-1, 1], float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(samples, prototypes, generator=generator, dtype=torch.float64) * 2 - 1


def plain_sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> list[list[float]]:
    """The three lines of the spec, number by number: Q has a row for each prototype."""
    rows = [[math.exp(value / epsilon) for value in column] for column in scores.T.tolist()]
    total = sum(map(sum, rows))
    rows = [[value / total for value in row] for row in rows]
    prototypes, samples = len(rows), len(rows[0])
    for _ in range(iterations):
        rows = [[value / sum(row) / prototypes for value in row] for row in rows]
        totals = [sum(row[i] for row in rows) for i in range(samples)]
        rows = [[value / totals[i] / samples for i, value in enumerate(row)] for row in rows]
    return [[rows[p][i] * samples for p in range(prototypes)] for i in range(samples)]
