"""Images of one colour a class, and a linear probe on their mean colour."""

from __future__ import annotations

import numpy as np
from PIL import Image
from torch import Tensor, nn

from disco_zoo.data.dataset import ImageSource
from disco_zoo.evaluation.probes.linear import linear_probe


class ColorSource(ImageSource):
    """Plain images: class c has its own colour, each image a little noise."""

    def __init__(self, split: str, labels: list[int], names: list[str] | None = None) -> None:
        super().__init__("colours", split, labels, names)

    def __len__(self) -> int:
        return len(self.labels)

    def encoded(self, index: int) -> Image.Image:
        noise = np.random.default_rng(index).integers(0, 20, (16, 16, 3))
        color = np.array([[200, 30, 30], [30, 200, 30], [30, 30, 200]])[self.labels[index]]
        return Image.fromarray((noise + color).astype(np.uint8))

    def path(self, index: int) -> str:
        return f"{index}.png"

    def _hash_content(self, digest) -> None:
        raise NotImplementedError


class MeanColor(nn.Module):
    """Features (B, 3): mean of each channel, behind a BatchNorm that must stay in eval."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(3)

    def forward(self, images: Tensor) -> Tensor:
        return self.bn(images).mean(dim=(2, 3))


TRAIN = ColorSource("train", [0, 1, 2] * 8)


TEST = ColorSource("test", [0, 1, 2] * 4)


def probe(backbone: nn.Module | None = None, train=TRAIN, test=TEST, **options):
    inputs = {"image_size": 8, "mean": (0.5,) * 3, "std": (0.5,) * 3, "batch_size": 8}
    return linear_probe(backbone or MeanColor(), 3, train, test, **{**inputs, **options})


class Stop(Exception):
    """What stands for a power cut."""


class FingerprintedSource(ColorSource):
    """Colours with a fingerprint, which checkpoints ask for."""

    def _hash_content(self, digest) -> None:
        digest.update(self.split.encode())
