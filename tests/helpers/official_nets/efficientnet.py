"""EfficientNet-B0 and B1 as SEED and BINGO build them: TF's SAME padding, frozen when the network is built."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F

# kernel, stride, expansion, input and output channels, blocks (Tan and Le 2019, table 1)
STAGES = [
    (3, 1, 1, 32, 16, 1),
    (3, 2, 6, 16, 24, 2),
    (5, 2, 6, 24, 40, 2),
    (3, 2, 6, 40, 80, 3),
    (5, 1, 6, 80, 112, 3),
    (5, 2, 6, 112, 192, 4),
    (3, 1, 6, 192, 320, 1),
]
DEPTH_AND_PIXELS = {"b0": (1.0, 224), "b1": (1.1, 240)}
EPS = 1e-3


class FrozenSameConv(nn.Conv2d):
    """A convolution with the padding that SAME needs for an input of `pixels` pixels, whatever it is given."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, pixels: int
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride=stride, groups=groups, bias=False)
        total = max((math.ceil(pixels / stride) - 1) * stride + kernel - pixels, 0)
        self.frozen = (total // 2, total - total // 2) * 2

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, self.frozen))


class Block(nn.Module):
    def __init__(self, kernel: int, stride: int, expansion: int, inputs: int, outputs: int, pixels: int) -> None:
        super().__init__()
        middle = inputs * expansion
        if expansion > 1:
            self._expand_conv = nn.Conv2d(inputs, middle, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(middle, eps=EPS)
        self._depthwise_conv = FrozenSameConv(middle, middle, kernel, stride=stride, groups=middle, pixels=pixels)
        self._bn1 = nn.BatchNorm2d(middle, eps=EPS)
        squeezed = max(1, inputs // 4)
        self._se_reduce = nn.Conv2d(middle, squeezed, 1)
        self._se_expand = nn.Conv2d(squeezed, middle, 1)
        self._project_conv = nn.Conv2d(middle, outputs, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outputs, eps=EPS)
        self.skips = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = x
        if hasattr(self, "_expand_conv"):
            y = F.silu(self._bn0(self._expand_conv(y)))
        y = F.silu(self._bn1(self._depthwise_conv(y)))
        gate = self._se_expand(F.silu(self._se_reduce(y.mean(dim=(2, 3), keepdim=True))))
        y = self._bn2(self._project_conv(gate.sigmoid() * y))
        return x + y if self.skips else y


class EfficientNet(nn.Module):
    """Pooled features (B, 1280) of images (B, 3, S, S)."""

    def __init__(self, version: str) -> None:
        super().__init__()
        depth, pixels = DEPTH_AND_PIXELS[version]
        self._conv_stem = FrozenSameConv(3, 32, 3, stride=2, groups=1, pixels=pixels)
        self._bn0 = nn.BatchNorm2d(32, eps=EPS)
        pixels = math.ceil(pixels / 2)
        blocks = []
        for kernel, stride, expansion, inputs, outputs, count in STAGES:
            for number in range(math.ceil(depth * count)):
                first = number == 0
                blocks.append(
                    Block(kernel, stride if first else 1, expansion, inputs if first else outputs, outputs, pixels)
                )
                pixels = math.ceil(pixels / stride) if first else pixels
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = nn.Conv2d(320, 1280, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(1280, eps=EPS)

    def forward(self, images: Tensor) -> Tensor:
        x = F.silu(self._bn0(self._conv_stem(images)))
        for block in self._blocks:
            x = block(x)
        return F.silu(self._bn1(self._conv_head(x))).mean(dim=(2, 3))
