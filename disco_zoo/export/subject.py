"""What is exported: a backbone with its input, and all that somebody needs who only has the file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from disco_zoo import __version__
from disco_zoo.errors import DiscoZooError
from disco_zoo.evaluate.features import backbone_fingerprint, eval_resize_size, normalise
from disco_zoo.named_model import NamedModel
from disco_zoo.randomness import stream_generator

INPUT, OUTPUT = "images", "features"


class CannotExport(DiscoZooError):
    """A network that the format cannot hold, or whose file computes something else."""


class FromPixels(nn.Module):
    """A backbone behind its normalisation: uint8 RGB (B, 3, S, S) to features (B, D)."""

    mean: Tensor
    std: Tensor

    def __init__(self, named: NamedModel) -> None:
        super().__init__()
        self.backbone = named.backbone
        self.register_buffer("mean", torch.tensor(named.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(named.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.backbone((images.to(torch.float32) / 255 - self.mean) / self.std)
        return features


@dataclass(frozen=True)
class Subject:
    """A network to be exported, in eval mode.

    Attributes:
        named: the model; `network` is it, or it behind its normalisation.
        image_size: side of the input in pixels, fixed in the file; the batch is free.
        takes_pixels: whether the input is uint8 RGB instead of normalised float32.
    """

    named: NamedModel
    network: nn.Module
    image_size: int
    takes_pixels: bool

    @property
    def resize_size(self) -> int:
        own = self.named.resize_size if self.image_size == self.named.image_size else None
        return own or eval_resize_size(self.image_size)

    def example(self, batch: int, seed: int = 0) -> Tensor:
        """Random pictures (batch, 3, S, S) as the network takes them, the same for the same numbers."""
        shape = (batch, 3, self.image_size, self.image_size)
        generator = stream_generator("export_example", seed, batch)
        pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        if self.takes_pixels:
            return pixels
        return normalise(pixels, self.named.mean, self.named.std).contiguous()

    def facts(self) -> dict[str, Any]:
        """What goes into the file: whose features, and how to prepare a picture."""
        takes = "uint8 RGB" if self.takes_pixels else "float32 RGB / 255, minus mean, divided by std"
        return {
            "model": self.named.name,
            "network": self.named.network,
            "weights_sha256": backbone_fingerprint(self.named.backbone),
            "input": f"{INPUT} (batch, 3, {self.image_size}, {self.image_size}), {takes}",
            "output": f"{OUTPUT} (batch, {self.named.feature_dim})",
            "image_size": self.image_size,
            "resize_size": self.resize_size,
            "interpolation": "bilinear, antialiased; then a centre crop",
            "mean": list(self.named.mean),
            "std": list(self.named.std),
            "normalised_inside": self.takes_pixels,
            "made_by": f"disco-zoo {__version__}",
        }

    def facts_as_text(self) -> dict[str, str]:
        """The same as strings, for formats that hold nothing else."""
        return {key: value if isinstance(value, str) else json.dumps(value) for key, value in self.facts().items()}


def subject_of(named: NamedModel, *, image_size: int | None = None, normalise_inside: bool = False) -> Subject:
    """Prepare a model for export, on the CPU.

    Args:
        image_size: pixels; None for the model's own.
        normalise_inside: let the file take uint8 pixels.
    """
    named.backbone.cpu().eval().requires_grad_(False)
    network = FromPixels(named).eval() if normalise_inside else named.backbone
    return Subject(named, network, image_size or named.image_size, normalise_inside)
