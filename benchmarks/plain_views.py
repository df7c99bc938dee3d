"""The view recipes as plain torchvision v2 pipelines: the yardstick of `views_time.py` and of the tests."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from PIL import Image, ImageFilter
from torchvision.transforms import v2

from disco_zoo.transforms.view_recipes import VIEW_RECIPES

ORDERS = {
    "moco_v1": ("gray", "jitter", "flip"),
    "moco_v2": ("jitter", "gray", "blur", "flip"),
    "plain": ("flip",),
    "simclr": ("flip", "jitter", "gray", "blur"),
    "swav": ("flip", "jitter", "gray", "blur"),
}


class PILGaussianBlur(v2.Transform):
    """Pillow's blur, radius σ ~ U(sigma) in pixels, as MoCo-v2 has it."""

    _transformed_types = (Image.Image,)

    def __init__(self, sigma: tuple[float, float]) -> None:
        super().__init__()
        self.sigma = sigma

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"radius": torch.empty(1).uniform_(*self.sigma).item()}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return inpt.filter(ImageFilter.GaussianBlur(radius=params["radius"]))


def plain_pipeline(recipe: str, size: int, **changed: Any) -> v2.Compose:
    """PIL image to uint8 (3, size, size), with the parameters that the recipe has by default, but for `changed`."""
    parameters = inspect.signature(VIEW_RECIPES[recipe]).parameters.values()
    options = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY} | changed
    mode = v2.InterpolationMode.BICUBIC if recipe == "simclr" else v2.InterpolationMode.BILINEAR
    crop = v2.RandomResizedCrop(size, scale=options["crop_scale"], ratio=options["crop_ratio"], interpolation=mode)
    steps = [_step(name, options) for name in ORDERS[recipe]]
    return v2.Compose([crop, *steps, v2.PILToTensor()])


def _step(name: str, options: dict[str, Any]) -> v2.Transform:
    if name == "flip":
        return v2.RandomHorizontalFlip(p=options["flip_probability"])
    if name == "gray":
        return v2.RandomGrayscale(p=options["gray_probability"])
    if name == "blur":
        return v2.RandomApply([PILGaussianBlur(options["blur_sigma"])], p=options["blur_probability"])
    jitter = v2.ColorJitter(*options["jitter"])
    return v2.RandomApply([jitter], p=options["jitter_probability"]) if "jitter_probability" in options else jitter
