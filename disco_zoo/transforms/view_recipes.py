"""Views: the random augmentations of the papers, each fixed by (seed, epoch, index, view).

Recipes of spec 1.2 with every parameter as an argument. A view is a uint8 tensor (3, S, S): each
network applies its own normalisation to the shared view, because a teacher's mean and std need not be the
student's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from disco_zoo.core.random_streams import drawing_from
from disco_zoo.core.schema import Probability, Share
from disco_zoo.data.source_image import SourceImage
from disco_zoo.transforms.ops import Box, Draws, RandomBlur, RandomCrop, RandomFlip, RandomGray, RandomJitter, Step

View = Callable[[SourceImage], Tensor]
Jitter = tuple[NonNegativeFloat, NonNegativeFloat, NonNegativeFloat, NonNegativeFloat]


@dataclass(frozen=True)
class RandomView:
    """A crop and the steps that follow it; torch's CPU generator decides."""

    crop: RandomCrop
    steps: tuple[Step, ...]

    def __call__(self, image: SourceImage | Image.Image) -> Tensor:
        """Draw one view: uint8 (3, S, S)."""
        image = SourceImage(image) if isinstance(image, Image.Image) else image
        return self.apply(image, *self.draw(*image.size))

    def draw(self, width: int, height: int) -> tuple[Box, list[Any]]:
        """The crop of an image of this size, and what each step does (None for nothing)."""
        draws = Draws()
        return self.crop.draw(draws, width, height), [step.draw(draws) for step in self.steps]

    def apply(self, image: SourceImage, box: Box, drawn: list[Any]) -> Tensor:
        """The view that was drawn."""
        pixels: Any = self.crop.apply(image, box)
        for step, what in zip(self.steps, drawn, strict=True):
            if what is not None:
                pixels = step.apply(pixels, what)
        pixels = (np.rint(pixels, out=pixels) if pixels.dtype == np.float32 else pixels).astype(np.uint8, copy=False)
        if len(pixels) == 1:
            pixels = np.repeat(pixels, 3, axis=0)
        return torch.from_numpy(np.ascontiguousarray(pixels))


@dataclass(frozen=True)
class OfWholeImage:
    """The view that transforms of torchvision make of the whole image."""

    transform: Callable[[Image.Image], Tensor]

    def __call__(self, image: SourceImage) -> Tensor:
        return self.transform(image.rgb())


def moco_v2_view(
    size: int,
    *,
    crop_scale: tuple[Share, Share] = (0.2, 1.0),
    crop_ratio: tuple[PositiveFloat, PositiveFloat] = (3 / 4, 4 / 3),
    jitter: Jitter = (0.4, 0.4, 0.4, 0.1),
    jitter_probability: Probability = 0.8,
    gray_probability: Probability = 0.2,
    blur_probability: Probability = 0.5,
    blur_sigma: tuple[PositiveFloat, PositiveFloat] = (0.1, 2.0),
    flip_probability: Probability = 0.5,
) -> View:
    """A-moco2 (MoCo-v2, DisCo): crop, colour jitter, greyscale, blur, flip.

    Args:
        size: side of the view in pixels.
        crop_scale: area of the crop as a share of the image.
        crop_ratio: width over height of the crop.
        jitter: strengths of brightness, contrast, saturation and hue.
        blur_sigma: range of the blur's radius, in pixels of the view.
    """
    return RandomView(
        RandomCrop(size, crop_scale, crop_ratio),
        (
            RandomJitter(jitter, jitter_probability),
            RandomGray(gray_probability),
            RandomBlur(blur_probability, blur_sigma),
            RandomFlip(flip_probability),
        ),
    )


def plain_view(
    size: int,
    *,
    crop_scale: tuple[Share, Share] = (0.08, 1.0),
    crop_ratio: tuple[PositiveFloat, PositiveFloat] = (3 / 4, 4 / 3),
    flip_probability: Probability = 0.5,
) -> View:
    """A-plain (CompRess, linear probes): random resized crop and horizontal flip."""
    return RandomView(RandomCrop(size, crop_scale, crop_ratio), (RandomFlip(flip_probability),))


def moco_v1_view(
    size: int,
    *,
    crop_scale: tuple[Share, Share] = (0.2, 1.0),
    crop_ratio: tuple[PositiveFloat, PositiveFloat] = (3 / 4, 4 / 3),
    gray_probability: Probability = 0.2,
    jitter: Jitter = (0.4, 0.4, 0.4, 0.4),
    flip_probability: Probability = 0.5,
) -> View:
    """A-moco1 (MoCo-v1; SEED with a SimCLR teacher, quirk Q13): greyscale before a jitter that is always on."""
    return RandomView(
        RandomCrop(size, crop_scale, crop_ratio),
        (RandomGray(gray_probability), RandomJitter(jitter), RandomFlip(flip_probability)),
    )


def swav_view(
    size: int,
    *,
    crop_scale: tuple[Share, Share] = (0.14, 1.0),
    crop_ratio: tuple[PositiveFloat, PositiveFloat] = (3 / 4, 4 / 3),
    flip_probability: Probability = 0.5,
    jitter: Jitter = (0.8, 0.8, 0.8, 0.2),
    jitter_probability: Probability = 0.8,
    gray_probability: Probability = 0.2,
    blur_probability: Probability = 0.5,
    blur_sigma: tuple[PositiveFloat, PositiveFloat] = (0.1, 2.0),
) -> View:
    """A-swav (SwAV, DisCo with SwAV): the flip first, then a strong jitter, greyscale and blur."""
    crop = RandomCrop(size, crop_scale, crop_ratio)
    return _flipped_first(
        crop, flip_probability, jitter, jitter_probability, gray_probability, blur_probability, blur_sigma
    )


def simclr_view(
    size: int,
    *,
    crop_scale: tuple[Share, Share] = (0.08, 1.0),
    crop_ratio: tuple[PositiveFloat, PositiveFloat] = (3 / 4, 4 / 3),
    flip_probability: Probability = 0.5,
    jitter: Jitter = (0.8, 0.8, 0.8, 0.2),
    jitter_probability: Probability = 0.8,
    gray_probability: Probability = 0.2,
    blur_probability: Probability = 0.5,
    blur_sigma: tuple[PositiveFloat, PositiveFloat] = (0.1, 2.0),
) -> View:
    """A-simclr (Chen et al. 2020, appendix A): bicubic crop, flip, strong jitter, greyscale, blur."""
    crop = RandomCrop(size, crop_scale, crop_ratio, "bicubic")
    return _flipped_first(
        crop, flip_probability, jitter, jitter_probability, gray_probability, blur_probability, blur_sigma
    )


def _flipped_first(
    crop: RandomCrop,
    flip_probability: float,
    jitter: Jitter,
    jitter_probability: float,
    gray_probability: float,
    blur_probability: float,
    blur_sigma: tuple[float, float],
) -> View:
    """What A-swav and A-simclr have in common behind their crops."""
    return RandomView(
        crop,
        (
            RandomFlip(flip_probability),
            RandomJitter(jitter, jitter_probability),
            RandomGray(gray_probability),
            RandomBlur(blur_probability, blur_sigma),
        ),
    )


# "moco_v2" with other numbers is A-seedswav (crop_scale 0.14 to 1) and A-small of ssl-small (stronger, more grey).
VIEW_RECIPES: dict[str, Callable[..., View]] = {
    "moco_v1": moco_v1_view,
    "moco_v2": moco_v2_view,
    "plain": plain_view,
    "simclr": simclr_view,
    "swav": swav_view,
}


def draw_view(view: View, image: SourceImage, seed: int, epoch: int, index: int, number: int) -> Tensor:
    """Draw view `number` of image `index` in `epoch`: uint8 (3, S, S), the same wherever it is drawn."""
    with drawing_from("view", seed, epoch, index, number):
        return view(image)
