"""Convolutions of few positions and many weights as one matrix product: the same numbers, sooner on a CPU.

The last stage of a ResNet-18 sees maps of 2×2 for images of 64 pixels. A step of PyTorch's convolution there takes
several times as long as the product of patches and weights that it stands for: `benchmarks/small_maps.py`.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MANY_WEIGHTS = 2**20
FEW_POSITIONS = 1024  # in all maps of a batch together


class SmallMapConv2d(nn.Conv2d):
    """In training, a batch whose maps have few positions is a product of patches and weights."""

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, D, H, W) of maps (B, C, H', W')."""
        (high, wide), (down, right) = self.kernel_size, self.stride
        top, left = cast("tuple[int, int]", self.padding)
        height = (maps.shape[2] + 2 * top - high) // down + 1
        width = (maps.shape[3] + 2 * left - wide) // right + 1
        if not self.training or len(maps) * height * width > FEW_POSITIONS:
            return super().forward(maps)
        padded = F.pad(maps.permute(0, 2, 3, 1), (0, 0, left, left, top, top))
        patches = [
            padded[:, i : i + height * down : down, j : j + width * right : right]
            for i in range(high)
            for j in range(wide)
        ]
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)
        return F.linear(torch.cat(patches, -1), weight, self.bias).permute(0, 3, 1, 2)


def multiply_small_maps(network: nn.Module) -> None:
    """Let those convolutions of a network multiply patches that may gain by it; tensors and their names stay."""
    for module in network.modules():
        if (
            type(module) is nn.Conv2d
            and module.weight.numel() >= MANY_WEIGHTS
            and module.kernel_size != (1, 1)
            and module.groups == 1
            and module.dilation == (1, 1)
            and module.padding_mode == "zeros"
            and isinstance(module.padding, tuple)
        ):
            module.__class__ = SmallMapConv2d
