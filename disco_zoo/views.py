"""Views: the random augmentations of the papers, each fixed by (seed, epoch, index, view).

Recipes of `methods.md` 1.2 with every parameter as an argument. A view is a uint8 tensor (3, S, S): each
network applies its own normalisation to the shared view, because a teacher's mean and std need not be the
student's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image, ImageFilter
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor
from torchvision.transforms import v2

from disco_zoo.randomness import drawing_from
from disco_zoo.ranges import Probability, Share

View = Callable[[Image.Image], Tensor]
Jitter = tuple[NonNegativeFloat, NonNegativeFloat, NonNegativeFloat, NonNegativeFloat]


class PILGaussianBlur(v2.Transform):
    """Blur with PIL's Gaussian filter, radius σ ~ U(sigma) in pixels, as MoCo-v2 does.

    torchvision's own blur wants a kernel size, so its result at a given σ differs.
    """

    _transformed_types = (Image.Image,)

    def __init__(self, sigma: tuple[float, float]) -> None:
        super().__init__()
        self.sigma = sigma

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"radius": torch.empty(1).uniform_(*self.sigma).item()}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return inpt.filter(ImageFilter.GaussianBlur(radius=params["radius"]))


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
    return v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=crop_scale, ratio=crop_ratio, antialias=True),
            v2.RandomApply([v2.ColorJitter(*jitter)], p=jitter_probability),
            v2.RandomGrayscale(p=gray_probability),
            v2.RandomApply([PILGaussianBlur(blur_sigma)], p=blur_probability),
            v2.RandomHorizontalFlip(p=flip_probability),
            v2.PILToTensor(),
        ]
    )


def plain_view(
    size: int,
    *,
    crop_scale: tuple[Share, Share] = (0.08, 1.0),
    crop_ratio: tuple[PositiveFloat, PositiveFloat] = (3 / 4, 4 / 3),
    flip_probability: Probability = 0.5,
) -> View:
    """A-plain (CompRess, linear probes): random resized crop and horizontal flip."""
    return v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=crop_scale, ratio=crop_ratio, antialias=True),
            v2.RandomHorizontalFlip(p=flip_probability),
            v2.PILToTensor(),
        ]
    )


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
    return v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=crop_scale, ratio=crop_ratio, antialias=True),
            v2.RandomGrayscale(p=gray_probability),
            v2.ColorJitter(*jitter),
            v2.RandomHorizontalFlip(p=flip_probability),
            v2.PILToTensor(),
        ]
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
    crop = v2.RandomResizedCrop(size, scale=crop_scale, ratio=crop_ratio, antialias=True)
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
    bicubic = v2.InterpolationMode.BICUBIC
    crop = v2.RandomResizedCrop(size, scale=crop_scale, ratio=crop_ratio, interpolation=bicubic, antialias=True)
    return _flipped_first(
        crop, flip_probability, jitter, jitter_probability, gray_probability, blur_probability, blur_sigma
    )


def _flipped_first(
    crop: v2.Transform,
    flip_probability: float,
    jitter: Jitter,
    jitter_probability: float,
    gray_probability: float,
    blur_probability: float,
    blur_sigma: tuple[float, float],
) -> View:
    """What A-swav and A-simclr have in common behind their crops."""
    return v2.Compose(
        [
            crop,
            v2.RandomHorizontalFlip(p=flip_probability),
            v2.RandomApply([v2.ColorJitter(*jitter)], p=jitter_probability),
            v2.RandomGrayscale(p=gray_probability),
            v2.RandomApply([PILGaussianBlur(blur_sigma)], p=blur_probability),
            v2.PILToTensor(),
        ]
    )


# "moco_v2" with other numbers is A-seedswav (crop_scale 0.14 to 1) and A-small of ssl-small (stronger, more grey).
VIEW_RECIPES: dict[str, Callable[..., View]] = {
    "moco_v1": moco_v1_view,
    "moco_v2": moco_v2_view,
    "plain": plain_view,
    "simclr": simclr_view,
    "swav": swav_view,
}


def draw_view(view: View, image: Image.Image, seed: int, epoch: int, index: int, number: int) -> Tensor:
    """Draw view `number` of image `index` in `epoch`: uint8 (3, S, S), the same wherever it is drawn."""
    with drawing_from("view", seed, epoch, index, number):
        return view(image)
