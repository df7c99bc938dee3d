"""Convolutions over a few positions with many weights, as one matrix product: the same numbers, sooner on a CPU.

The last stage of a ResNet-18 sees maps of 2×2 for images of 64 pixels. There PyTorch's convolution takes several times
as long as the product of patches and weights that it stands for, in float32 and more so in bfloat16; measured by
`benchmarks/small_maps.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MANY_WEIGHTS = 2**20
FEW_POSITIONS = 1024  # in all maps of a batch together


class SmallMapConv2d(nn.Conv2d):
    """A convolution that multiplies patches in training where a batch's maps have few positions."""

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, D, H, W) of maps (B, C, H', W')."""
        (rows, top), (columns, left) = zip(self.stride, self.padding, strict=True)  # type: ignore[arg-type]
        height = (maps.shape[2] + 2 * top - self.kernel_size[0]) // rows + 1
        width = (maps.shape[3] + 2 * left - self.kernel_size[1]) // columns + 1
        if not self.training or len(maps) * height * width > FEW_POSITIONS:
            return super().forward(maps)
        padded = F.pad(maps.permute(0, 2, 3, 1), (0, 0, left, left, top, top))
        patches = [
            padded[:, i : i + height * rows : rows, j : j + width * columns : columns]
            for i in range(self.kernel_size[0])
            for j in range(self.kernel_size[1])
        ]
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)
        return F.linear(torch.cat(patches, -1), weight, self.bias).permute(0, 3, 1, 2)


def multiply_small_maps(network: nn.Module) -> None:
    """Let the convolutions of a network that may gain multiply patches; tensors and their names stay."""
    for module in network.modules():
        if (
            type(module) is nn.Conv2d
            and module.weight.numel() >= MANY_WEIGHTS
            and max(module.kernel_size) > 1
            and module.groups == 1
            and module.dilation == (1, 1)
            and module.padding_mode == "zeros"
            and not isinstance(module.padding, str)
        ):
            module.__class__ = SmallMapConv2d
