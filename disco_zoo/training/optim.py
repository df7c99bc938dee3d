"""Optimizers, and the learning rate as a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from timm.optim import Lars
from torch import Tensor, nn

from disco_zoo.config.recipe import OptimSection

TRUST_COEFFICIENT = 1e-3  # of LARS and LARC; SwAV and SimCLR use this one
SEED_WARMUP_EPOCHS = 5


def build_optimizer(parameters: Iterable[nn.Parameter], optim: OptimSection, lr: float) -> torch.optim.Optimizer:
    """The recipe's optimiser for all parameters that take a gradient.

    With momentum m, weight decay w, gradient g and parameters θ of one tensor:

    - `sgd`: v ← m·v + g + w·θ, then θ ← θ − lr·v; decay on all tensors, as in the papers;
    - `larc`: v ← m·v + τ·(g + w·θ) with τ = 0.001·‖θ‖ / (‖g‖ + w·‖θ‖ + 1e-8), or 1 where a norm is 0. This is
      LARC (You, Gitman, Ginsburg 2017) without clipping, as SwAV uses it;
    - `lars`: as `larc`, but tensors of one dimension, biases and norms, as `sgd` without decay (SimCLR);
    - `adamw`: PyTorch's, with its own betas; decay on all tensors.

    `sgd` and `adamw` are fused: one kernel in place of several a tensor. A run keeps the kind it began with, since that
    is in its checkpoint.
    """
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    # A fused step skips overflown fp16 gradients inside its kernel, where Accelerate does not see it.
    fused = optim.precision != "fp16"
    if optim.optimizer == "adamw":
        return torch.optim.AdamW(trainable, lr=lr, weight_decay=optim.weight_decay, fused=fused)
    if optim.optimizer == "sgd":
        return _sgd(trainable, lr, optim, fused)
    adapted = [p for p in trainable if p.ndim > 1 or optim.optimizer == "larc"]
    plain = [p for p in trainable if p.ndim <= 1 and optim.optimizer == "lars"]
    groups: list[dict[str, Any]] = [
        {"params": adapted, "weight_decay": optim.weight_decay, "always_adapt": True},
        {"params": plain, "weight_decay": 0.0, "always_adapt": False},
    ]
    filled = [group for group in groups if group["params"]]
    return Lars(filled, lr=lr, momentum=optim.momentum, trust_coeff=TRUST_COEFFICIENT, trust_clip=False)


def _sgd(parameters: list[nn.Parameter], lr: float, optim: OptimSection, fused: bool) -> torch.optim.SGD:
    optimizer = torch.optim.SGD(
        parameters, lr=lr, momentum=optim.momentum, weight_decay=optim.weight_decay, fused=fused
    )
    if fused and optim.momentum:
        # m·0 + g is the g that PyTorch starts with. The fused kernel cannot start a tensor later than the others, as
        # SwAV's frozen prototypes do.
        for parameter in parameters:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load an optimiser's state, laid out in memory as the parameters are now.

    Fused kernels walk through memory and not along strides: a channels-last momentum for a contiguous parameter would
    be added to the wrong numbers, without a word.
    """
    optimizer.load_state_dict(state)
    for parameter, kept in optimizer.state.items():
        for name, value in kept.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                kept[name] = torch.empty_like(parameter).copy_(value)


def lr_at(step: int, *, peak_lr: float, steps_per_epoch: int, optim: OptimSection) -> float:
    """The rate for optimiser step `step`, counted from 0; `peak_lr` is base_lr · batch_size / 256.

    After a linear warm-up, whose length is taken off the cosines only:

    - `cosine_epoch`: the papers' lr·½(1+cos(π·epoch/epochs)) with whole epochs;
    - `cosine_step`: the same curve with fractions. Both end at `final_lr_fraction` of the peak. At each of the
      `restarts` the curve begins anew, from the share of the peak given there (SGDR, arXiv:1608.03983);
    - `multistep`: the peak times `gamma` for each milestone that has as many finished epochs behind it;
    - `constant`: the peak;
    - `seed_official`: what SEED's code does in place of a warm-up (spec Q10).
    """
    epoch, whole_epoch = step / steps_per_epoch, step // steps_per_epoch
    if epoch < optim.warmup_epochs:
        return peak_lr * _warm_up(step, optim.warmup_epochs * steps_per_epoch, optim.warmup_start_fraction)
    if optim.schedule == "constant":
        return peak_lr
    if optim.schedule == "multistep":
        passed = sum(whole_epoch >= milestone for milestone in optim.milestones_epochs or ())
        return peak_lr * (optim.gamma or 1.0) ** passed
    if optim.schedule == "seed_official":
        return _seed_official(whole_epoch, optim.base_lr, peak_lr, optim.epochs)
    if optim.schedule == "cosine_epoch":
        epoch = whole_epoch
    return peak_lr * _cosine_share(epoch, optim)


def _cosine_share(epoch: float, optim: OptimSection) -> float:
    """Share of the peak after `epoch` epochs: on the cosine from the last restart to the next, or to the end."""
    cycles = {0: 1.0, **optim.restarts}
    cycle = max(first for first in cycles if first <= epoch)
    began = cycle or optim.warmup_epochs
    ends = min((following for following in cycles if following > epoch), default=optim.epochs)
    progress = max(0.0, epoch - began) / max(1e-12, ends - began)
    final = optim.final_lr_fraction
    return final + (cycles[cycle] - final) * _half_cosine(progress)


def _warm_up(step: int, num_steps: float, start: float | None) -> float:
    """Share of the peak: from `start` at step 0 to 1 at the last of `num_steps` (SwAV), or (step + 1) / num_steps."""
    if start is None:
        return min(1.0, (step + 1) / num_steps)
    return start + (1.0 - start) * (min(1.0, step / (num_steps - 1)) if num_steps > 1 else 0.0)


def _seed_official(epoch: int, base_lr: float, peak_lr: float, epochs: int) -> float:
    """Five epochs from the unscaled to the scaled rate (flat for 256 images), then a cosine not shifted by them."""
    if epoch < SEED_WARMUP_EPOCHS:
        return base_lr + (peak_lr - base_lr) / SEED_WARMUP_EPOCHS * epoch
    return peak_lr * _half_cosine(epoch / epochs)


def _half_cosine(progress: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * progress))
