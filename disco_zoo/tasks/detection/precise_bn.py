"""BatchNorm statistics as averages over many training batches, taken before measuring (detectron2's Precise-BN)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn


@torch.no_grad()
def set_precise_statistics(model: nn.Module, batches: Iterable[Any], forward: Callable[[Any], object]) -> int:
    """Replace the running statistics of each BatchNorm that learns by their average over `batches`.

    Args:
        forward: runs the model in train mode on one batch; torch's random state is put back afterwards.

    Returns:
        How many BatchNorms were set; 0 where all are frozen, and then no batch is read.
    """
    training = model.training
    model.train()
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # then torch takes the plain average
        if norms:
            with torch.random.fork_rng():
                for batch in batches:
                    forward(batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.train(training)
    return len(norms)
