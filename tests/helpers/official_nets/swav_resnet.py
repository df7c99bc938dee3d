"""SwAV's ResNet-50 of any width: a padding layer of 1 and a first convolution with padding 2."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, middle: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, middle, 1, bias=False), nn.BatchNorm2d(middle)
        self.conv2, self.bn2 = nn.Conv2d(middle, middle, 3, stride, 1, bias=False), nn.BatchNorm2d(middle)
        self.conv3, self.bn3 = nn.Conv2d(middle, 4 * middle, 1, bias=False), nn.BatchNorm2d(4 * middle)
        if stride > 1 or inputs != 4 * middle:
            shortcut = nn.Conv2d(inputs, 4 * middle, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(4 * middle))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        shortcut = self.downsample(x) if hasattr(self, "downsample") else x
        return F.relu(shortcut + self.bn3(self.conv3(y)))


class SwavResNet50(nn.Module):
    """L2-normalised embeddings (B, 128); `features` gives the pooled features (B, 2048 * width)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.padding = nn.ConstantPad2d(1, 0.0)
        self.conv1 = nn.Conv2d(3, 64 * width, 7, stride=2, padding=2, bias=False)
        self.bn1 = nn.BatchNorm2d(64 * width)
        inputs = 64 * width
        for number, blocks in enumerate((3, 4, 6, 3)):
            middle, layer = 64 * width * 2**number, []
            for block in range(blocks):
                layer.append(Bottleneck(inputs, middle, 2 if number and not block else 1))
                inputs = 4 * middle
            setattr(self, f"layer{number + 1}", nn.Sequential(*layer))
        self.projection_head = nn.Sequential(
            nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, 128)
        )
        self.prototypes = nn.Linear(128, 30, bias=False)

    def features(self, images: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(self.padding(images)))), 3, 2, 1)
        for number in range(1, 5):
            x = getattr(self, f"layer{number}")(x)
        return torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)

    def forward(self, images: Tensor) -> Tensor:
        return F.normalize(self.projection_head(self.features(images)))
