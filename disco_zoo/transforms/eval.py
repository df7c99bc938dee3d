"""The evaluation transform: resize the shorter side, center crop, normalize (EVAL of spec 1.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from disco_zoo.core.schema import Interpolation
from disco_zoo.data.source_image import SourceImage

REDUCED_MARGIN = 2.7
"""A reduced JPEG has at least so many times the pixels a side that the resize needs: then features keep a cosine of
0.9999 to those of whole decoding for every photo that was measured (`benchmarks/reduced_decode.py`)."""


def eval_resize_size(image_size: int) -> int:
    """Shorter side before the centre crop, in pixels: the papers' 256 for 224, and in proportion."""
    return round(image_size * 256 / 224)


def eval_transform(
    image_size: int, resize_size: int | None = None, interpolation: Interpolation = "bilinear"
) -> Callable[[Image.Image], Tensor]:
    """EVAL without its normalisation: PIL image to uint8 (3, image_size, image_size).

    Args:
        image_size: side of the centre crop in pixels.
        resize_size: shorter side before the crop in pixels; default `eval_resize_size(image_size)`.
        interpolation: "bicubic" is for protocols that say so.

    Raises:
        ValueError: the crop would be larger than the resized image, that is, padded with black.
    """
    resize_size = eval_resize_size(image_size) if resize_size is None else resize_size
    if resize_size < image_size:
        raise ValueError(f"resize_size {resize_size} is smaller than the crop of {image_size} pixels.")
    return v2.Compose(
        [
            v2.Resize(resize_size, interpolation=v2.InterpolationMode(interpolation), antialias=True),
            v2.CenterCrop(image_size),
            v2.PILToTensor(),
        ]
    )


def embed_transform(image_size: int, resize_size: int, *, full_decode: bool) -> Callable[[SourceImage], Tensor]:
    """`eval_transform` of an image that is not decoded yet, for embeddings: a large JPEG is decoded at reduced size.

    Args:
        full_decode: decode each image whole, as measuring does.

    Raises:
        ValueError: see `eval_transform`.
    """
    whole = eval_transform(image_size, resize_size)
    crop = v2.Compose([v2.CenterCrop(image_size), v2.PILToTensor()])

    def apply(image: SourceImage) -> Tensor:
        shorter = min(image.size)
        width, height = (int(resize_size * side / shorter) for side in image.size)  # as v2.Resize rounds
        small = None if full_decode else image.resized((width, height), shorter / (resize_size * REDUCED_MARGIN))
        found: Tensor = whole(image.rgb()) if small is None else crop(small)
        return found

    return apply


def normalize(
    images: Tensor, mean: Sequence[float], std: Sequence[float], *, layout: torch.memory_format | None = None
) -> Tensor:
    """Map uint8 (B, 3, H, W) to float32 `(images/255 - mean) / std`.

    Args:
        layout: of the result in memory; by default channels last on the CPU, which makes PyTorch's convolutions of
            small backbones 1.2 to 2.4 times faster there.
    """
    if layout is None:
        layout = torch.channels_last if images.device.type == "cpu" else torch.preserve_format
    images = images.to(torch.float32, memory_format=layout, copy=True).div_(255.0)
    shift = torch.tensor(mean, dtype=torch.float32, device=images.device).view(1, 3, 1, 1)
    scale = torch.tensor(std, dtype=torch.float32, device=images.device).view(1, 3, 1, 1)
    return images.sub_(shift).div_(scale)
