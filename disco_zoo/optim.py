"""Optimisers, and the learning rate as a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from disco_zoo.recipe import OptimSection


def build_optimizer(parameters: Iterable[nn.Parameter], optim: OptimSection, lr: float) -> torch.optim.Optimizer:
    """SGD with momentum or AdamW; weight decay on all trainable parameters, as in the papers."""
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    if optim.optimizer == "sgd":
        return torch.optim.SGD(trainable, lr=lr, momentum=optim.momentum, weight_decay=optim.weight_decay)
    return torch.optim.AdamW(trainable, lr=lr, weight_decay=optim.weight_decay)


def lr_at(step: int, *, peak_lr: float, steps_per_epoch: int, optim: OptimSection) -> float:
    """The rate for optimiser step `step`, counted from 0.

    `cosine_epoch` is the papers' lr·½(1+cos(π·epoch/epochs)) with whole epochs; `cosine_step` is the same
    curve with fractions, after a linear warm-up whose length is taken off the cosine; `constant` stays.
    """
    epoch = step / steps_per_epoch
    if epoch < optim.warmup_epochs:
        return peak_lr * min(1.0, (step + 1) / (optim.warmup_epochs * steps_per_epoch))
    if optim.schedule == "constant":
        return peak_lr
    if optim.schedule == "cosine_epoch":
        epoch = math.floor(epoch)
    progress = max(0.0, epoch - optim.warmup_epochs) / max(1e-12, optim.epochs - optim.warmup_epochs)
    return peak_lr * 0.5 * (1.0 + math.cos(math.pi * progress))
