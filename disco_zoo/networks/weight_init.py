"""Weight initializations of the authors' codes that differ from timm's."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import nn

WeightInit = Literal["timm", "torchvision", "pytorch"]

LINEAR_STD = 0.01


@torch.no_grad()
def initialize_weights(network: nn.Module, kind: WeightInit) -> None:
    """Draw the weights of a convolutional network anew; every BatchNorm starts as the identity.

    timm starts a ResNet's last BatchNorm of each residual block at 0, and counts a depthwise convolution's fan-out by
    group. The authors' code does neither (spec 1.5).

    Args:
        network: timm's, with its own start; "timm" leaves it as it is.
        kind: "torchvision": convolutions N(0, 2 / (k²·outputs)) whatever their groups, linear layers N(0, 0.01²), which
            in timm's networks are the convolutions with a bias; biases 0. "pytorch": each layer as PyTorch makes it,
            weights and biases U(±1/√fan_in).
    """
    draw = _KINDS.get(kind)
    if draw is None:
        return
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            draw(module)
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_parameters()


def _torchvision(layer: nn.Conv2d | nn.Linear) -> None:
    if layer.bias is not None or isinstance(layer, nn.Linear):
        nn.init.normal_(layer.weight, std=LINEAR_STD)
    else:
        nn.init.normal_(layer.weight, std=math.sqrt(2 / (math.prod(layer.kernel_size) * layer.out_channels)))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _pytorch(layer: nn.Conv2d | nn.Linear) -> None:
    layer.reset_parameters()


_KINDS: dict[str, Callable[[nn.Conv2d | nn.Linear], None]] = {"torchvision": _torchvision, "pytorch": _pytorch}
