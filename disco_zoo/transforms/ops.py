"""The random steps that views are made of. Each first draws what to do, then does it to the pixels.

The draws are torch's, in torchvision's order and from the same ranges, so that a stream gives the same crops, colors
and blurs as its v2 transforms would; they are drawn in one call, which is faster.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from disco_zoo.data.source_image import SourceImage
from disco_zoo.transforms import functional
from disco_zoo.transforms.functional import Planes, blurred

PAIRS = 16  # of 32-bit numbers, fetched at once; a view seldom takes more
UNIFORM_STEPS = 2**24  # of a float32 from 0 to 1


class Draws:
    """What `uniform_`, `rand`, `randint` and `randperm` of torch's generator would give next."""

    def __init__(self) -> None:
        self._raw: list[int] = []

    def _next(self) -> int:
        if not self._raw:
            # 64 bits are two numbers of the generator, the earlier one in the upper half.
            pairs = torch.empty(PAIRS, dtype=torch.int64).random_(-(2**63), None).tolist()
            self._raw = [half for pair in reversed(pairs) for half in (pair & 0xFFFFFFFF, pair >> 32 & 0xFFFFFFFF)]
        return self._raw.pop()

    def uniform(self, low: float, high: float) -> float:
        """From `low` to below `high`."""
        return low + (high - low) * (self._next() % UNIFORM_STEPS / UNIFORM_STEPS)

    def bernoulli(self, probability: float) -> bool:
        """Whether something of this probability does."""
        return self.uniform(0.0, 1.0) < probability

    def below(self, number: int) -> int:
        """A whole number from 0 to `number` - 1."""
        return self._next() % number

    def order(self, number: int) -> list[int]:
        """The numbers below `number` in random order."""
        places = list(range(number))
        for first in range(number - 1):
            other = first + self.below(number - first)
            places[first], places[other] = places[other], places[first]
        return places


Interval = tuple[float, float]
CROP_TRIES = 10
MAX_TURN = 0.5  # half of the wheel of hues


class Box(NamedTuple):
    """A crop in pixels of the whole image."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class RandomCrop:
    """A random part of the image, resized with antialiasing to (size, size).

    Args:
        size: side in pixels.
        scale: area as a share of the image.
        ratio: width over height, log-uniform.
        interpolation: "bilinear" or "bicubic".
    """

    size: int
    scale: Interval
    ratio: Interval
    interpolation: str = "bilinear"

    def draw(self, draws: Draws, width: int, height: int) -> Box:
        """Where to cut an image of this size; the largest crop in the middle after ten that do not fit."""
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(CROP_TRIES):
            area = width * height * draws.uniform(*self.scale)
            ratio = math.exp(draws.uniform(low, high))
            cut_width, cut_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < cut_width <= width and 0 < cut_height <= height:
                top = draws.below(height - cut_height + 1)
                return Box(draws.below(width - cut_width + 1), top, cut_width, cut_height)
        cut_width = min(width, round(height * max(self.ratio)))
        cut_height = min(height, round(width / min(self.ratio)))
        return Box((width - cut_width) // 2, (height - cut_height) // 2, cut_width, cut_height)

    def reduction(self, width: int, height: int) -> int:
        """By how much an image of this size may be reduced before: not so far that any crop would be enlarged.

        It is decided by the smallest crop there can be, so that all views of a recipe share one decoding.
        """
        narrowest = math.sqrt(width * height * self.scale[0] * min(self.ratio[0], 1 / self.ratio[1]))
        return max(1, int(min(narrowest, width, height) / self.size))

    def apply(self, image: SourceImage, box: Box) -> NDArray[np.uint8]:
        """The crop as planes (3, size, size)."""
        pixels = image.pixels(self.reduction(*image.size))
        across, down = pixels.shape[1] / image.size[0], pixels.shape[0] / image.size[1]
        left, top = round(box.left * across), round(box.top * down)
        right = max(left + 1, round((box.left + box.width) * across))
        bottom = max(top + 1, round((box.top + box.height) * down))
        # torch resizes uint8 as Pillow does, within 1, in a third of the time; channels last is its fast layout.
        cut = torch.from_numpy(pixels[None, top:bottom, left:right].copy()).permute(0, 3, 1, 2)
        small = F.interpolate(cut, (self.size, self.size), mode=self.interpolation, antialias=True)
        return small[0].contiguous().numpy()


class Step(Protocol):
    """A change of pixels that is drawn first."""

    def draw(self, draws: Draws) -> Any:
        """What to do; None for nothing."""

    def apply(self, pixels: Planes, drawn: Any) -> Planes:
        """Do it to planes (3 or 1, H, W) from 0 to 255."""


@dataclass(frozen=True)
class RandomFlip:
    """Left and right exchanged."""

    probability: float

    def draw(self, draws: Draws) -> bool | None:
        return draws.bernoulli(self.probability) or None

    def apply(self, pixels: Planes, drawn: bool) -> Planes:
        return pixels[..., ::-1]


@dataclass(frozen=True)
class RandomGray:
    """All colour taken away."""

    probability: float

    def draw(self, draws: Draws) -> bool | None:
        return draws.bernoulli(self.probability) or None

    def apply(self, pixels: Planes, drawn: bool) -> Planes:
        return functional.luma(pixels)


@dataclass(frozen=True)
class RandomBlur:
    """A Gaussian blur of radius σ ~ U(sigma), in pixels of the view."""

    probability: float
    sigma: Interval

    def draw(self, draws: Draws) -> float | None:
        return draws.uniform(*self.sigma) if draws.bernoulli(self.probability) else None

    def apply(self, pixels: Planes, drawn: float) -> Planes:
        return blurred(pixels, drawn)


@dataclass(frozen=True)
class RandomJitter:
    """Brightness, contrast, saturation and hue changed in random order.

    Args:
        strengths: of the four. A factor is drawn from 1 ± strength (not below 0), a turn of hues from ± strength.
        probability: None for always, without a draw.
    """

    strengths: tuple[float, float, float, float]
    probability: float | None = None

    def __post_init__(self) -> None:
        if self.strengths[3] > MAX_TURN:
            raise ValueError(f"hue may be jittered by at most {MAX_TURN}, not {self.strengths[3]}")

    def draw(self, draws: Draws) -> list[tuple[str, float]] | None:
        """Names and factors in the order in which they apply."""
        if self.probability is not None and not draws.bernoulli(self.probability):
            return None
        order = draws.order(len(JITTERS))
        *factors, turn = self.strengths
        bounds = [(max(0.0, 1 - strength), 1 + strength) for strength in factors] + [(-turn, turn)]
        drawn = [draws.uniform(low, high) if low < high else None for low, high in bounds]
        return [(JITTERS[place], factor) for place in order if (factor := drawn[place]) is not None]

    def apply(self, pixels: Planes, drawn: list[tuple[str, float]]) -> Planes:
        for name, factor in drawn:
            pixels = _JITTER[name](pixels, factor)
        return pixels


def _turned(pixels: Planes, turns: float) -> Planes:
    return functional.hue_turned(pixels, int(255 * turns) / 255)  # Pillow's hues are whole numbers up to 255


_JITTER = {
    "brightness": functional.brightened,
    "contrast": functional.contrasted,
    "saturation": functional.saturated,
    "hue": _turned,
}
JITTERS = tuple(_JITTER)
