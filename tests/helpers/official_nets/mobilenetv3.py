"""MobileNetV3-Large as SEED and ssl-small build it: the gate comes before the depthwise activation."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

# kernel, inner channels, output channels, gate, h-swish, stride (Howard et al. 2019, table 1)
ROWS = [
    (3, 16, 16, 0, 0, 1),
    (3, 64, 24, 0, 0, 2),
    (3, 72, 24, 0, 0, 1),
    (5, 72, 40, 1, 0, 2),
    (5, 120, 40, 1, 0, 1),
    (5, 120, 40, 1, 0, 1),
    (3, 240, 80, 0, 1, 2),
    (3, 200, 80, 0, 1, 1),
    (3, 184, 80, 0, 1, 1),
    (3, 184, 80, 0, 1, 1),
    (3, 480, 112, 1, 1, 1),
    (3, 672, 112, 1, 1, 1),
    (5, 672, 160, 1, 1, 2),
    (5, 960, 160, 1, 1, 1),
    (5, 960, 160, 1, 1, 1),
]


def to_multiple_of_8(channels: float) -> int:
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class HardSwish(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * F.relu6(x + 3) / 6


class HardSigmoid(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu6(x + 3) / 6


class Gate(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = to_multiple_of_8(channels // 4)
        self.fc = nn.Sequential(nn.Linear(channels, squeezed), nn.ReLU(), nn.Linear(squeezed, channels), HardSigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x.mean(dim=(2, 3)))[:, :, None, None]


class Block(nn.Module):
    def __init__(self, inputs: int, kernel: int, middle: int, outputs: int, gate: int, swish: int, stride: int) -> None:
        super().__init__()
        depthwise = nn.Conv2d(middle, middle, kernel, stride, kernel // 2, groups=middle, bias=False)
        tail = [nn.Conv2d(middle, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        activation = HardSwish if swish else nn.ReLU
        squeeze = Gate(middle) if gate else nn.Identity()
        if inputs == middle:
            self.conv = nn.Sequential(depthwise, nn.BatchNorm2d(middle), activation(), squeeze, *tail)
        else:
            expand = [nn.Conv2d(inputs, middle, 1, bias=False), nn.BatchNorm2d(middle), activation()]
            self.conv = nn.Sequential(*expand, depthwise, nn.BatchNorm2d(middle), squeeze, activation(), *tail)
        self.skips = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.skips else self.conv(x)


class MobileNetV3Large(nn.Module):
    """Features (B, 1280) behind the last hidden layer, of images (B, 3, S, S)."""

    def __init__(self) -> None:
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), HardSwish())
        layers, inputs = [stem], 16
        for kernel, middle, outputs, gate, swish, stride in ROWS:
            layers.append(Block(inputs, kernel, middle, outputs, gate, swish, stride))
            inputs = outputs
        self.features = nn.Sequential(*layers)
        self.conv = nn.Sequential(nn.Conv2d(160, 960, 1, bias=False), nn.BatchNorm2d(960), HardSwish())
        self.classifier = nn.Sequential(nn.Linear(960, 1280), HardSwish())

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.conv(self.features(images)).mean(dim=(2, 3)))
