"""CutMix (Yun et al. 2019, arXiv:1905.04899): a box of one image in another, fixed by a counter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from disco_zoo.core.random_streams import stream_seed


@dataclass(frozen=True)
class Box:
    """Rows `top` to `bottom` and columns `left` to `right`, in pixels, ends excluded."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def area(self) -> int:
        return (self.bottom - self.top) * (self.right - self.left)


def draw_box(side: int, alpha: float, *key: int) -> Box:
    """A box in an image of `side` pixels: area 1−λ of it before clipping, λ ~ Beta(alpha, alpha), centre uniform.

    The box is a function of `key` alone, so a resumed run and every process of a run draw the same one.
    """
    generator = np.random.Generator(np.random.PCG64(stream_seed("cutmix", *key)))
    half = int(side * np.sqrt(1.0 - generator.beta(alpha, alpha))) // 2
    row, column = (int(centre) for centre in generator.integers(0, side, 2))
    return Box(max(row - half, 0), min(row + half, side), max(column - half, 0), min(column + half, side))


def cut_mix(views: Tensor, others: Tensor, box: Box) -> tuple[Tensor, float]:
    """Put `box` of others (b, 3, S, S) into views (b, 3, S, S); also the share of `views` that is left."""
    mixed = views.clone()
    mixed[..., box.top : box.bottom, box.left : box.right] = others[..., box.top : box.bottom, box.left : box.right]
    return mixed, 1.0 - box.area / (views.shape[-1] * views.shape[-2])
