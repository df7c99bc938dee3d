"""Training a method as the engine does, without an engine."""

from __future__ import annotations

import torch
from reference_loop import LR, SGD_MOMENTUM, WEIGHT_DECAY
from tiny import optim_section
from torch import Tensor

from disco_zoo.methods import Method
from disco_zoo.methods.base import Batch
from disco_zoo.training.optim import build_optimizer


def train(method: Method, batches: list[list[Tensor]]) -> list[dict[str, float]]:
    """The engine's order of things: forward, backward, optimiser, `after_step`."""
    section = optim_section(momentum=SGD_MOMENTUM, weight_decay=WEIGHT_DECAY)
    optimizer = build_optimizer(method.parameters(), section, LR)
    records = []
    for step, views in enumerate(batches):
        method.train()
        losses = method(Batch(views, torch.arange(4) + 4 * step))
        losses["loss"].backward()
        method.before_step()
        optimizer.step()
        optimizer.zero_grad()
        method.after_step()
        records.append({name: value.item() for name, value in losses.items()})
    return records
