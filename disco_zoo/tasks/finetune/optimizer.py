"""Parameter groups of a fine-tuning: the head at the full learning rate, lower layers at decayed rates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from timm.optim import param_groups_layer_decay
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from disco_zoo.tasks.finetune.settings import FinetuneSettings


def build_optimizer(network: nn.Module, settings: FinetuneSettings) -> torch.optim.Optimizer:
    """AdamW over all that learns; each group carries its share of the rate as `lr_scale`.

    The layers are timm's (`group_matcher`): layer l of L, counted from the input, has lr · decay^(L - l), and the
    head, L, the full rate (Clark et al. 2020; Bao et al. 2021). Biases, norms and what the model names in
    `no_weight_decay` are not decayed.
    """
    assert settings.lr is not None
    assert settings.layer_decay is not None
    if settings.head_only:
        network.requires_grad_(False)
        for head in classifiers(network):
            head.requires_grad_(True)
    no_decay = network.no_weight_decay() if hasattr(network, "no_weight_decay") else ()  # type: ignore[operator]
    groups = param_groups_layer_decay(
        network, settings.weight_decay, no_weight_decay_list=no_decay, layer_decay=settings.layer_decay
    )
    return torch.optim.AdamW(groups, lr=settings.lr)


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give each group its share of `lr`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def set_modes(network: nn.Module, settings: FinetuneSettings) -> None:
    """Put what learns into train mode; a frozen backbone, or BatchNorm where asked, stays in eval mode."""
    network.train(not settings.head_only)
    if settings.head_only:
        for head in classifiers(network):
            head.train()
    if settings.batch_norm == "eval":
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                module.eval()


def classifiers(network: Any) -> Iterator[nn.Module]:
    """The linear head of a timm network, or its two heads (distilled transformers)."""
    head = network.get_classifier()
    yield from head if isinstance(head, (tuple, list)) else (head,)
