"""Crops of images and masks for training, drawn from the seed alone, and whole images for measuring."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import pil_to_tensor

from disco_zoo.core.random_streams import stream_generator
from disco_zoo.errors import BadData
from disco_zoo.tasks.segmentation.data import IGNORED, MaskedSet
from disco_zoo.tasks.segmentation.head import SIZE_STEP
from disco_zoo.tasks.segmentation.settings import SegmentationSettings

_Item = tuple[Tensor | None, Tensor | None, int, str]


class CroppedImages(Dataset[_Item]):
    """Item (epoch, index): uint8 (3, S, S) and class numbers int64 (S, S) of a random square of that image."""

    def __init__(self, masked: MaskedSet, settings: SegmentationSettings, seed: int) -> None:
        self.masked, self.settings, self.seed = masked, settings, seed

    def __len__(self) -> int:
        return len(self.masked)

    def __getitem__(self, key: tuple[int, int]) -> _Item:
        epoch, index = key
        try:
            image, mask = self.masked.image(index), self.masked.mask(index)
        except BadData as error:
            return None, None, index, str(error)
        draws = torch.rand(4, generator=stream_generator("segmentation_crop", self.seed, epoch, index)).tolist()
        low, high = self.settings.scales
        pixels, classes = _resized(image, mask, round(self.settings.image_size * (low + (high - low) * draws[0])))
        pixels, classes = _square(pixels, classes, padded_size(self.settings.image_size), draws[1], draws[2])
        if draws[3] < 0.5:
            pixels, classes = pixels.flip(-1), classes.flip(-1)
        return pixels, classes, index, ""


def whole_image(image: Image.Image, image_size: int) -> tuple[Tensor, tuple[int, int]]:
    """An image with a shorter side of `image_size`, padded below and right to multiples of 32.

    Returns:
        uint8 (3, H, W), and its height and width without the padding.
    """
    pixels = pil_to_tensor(_with_shorter_side(image, image_size))
    height, width = pixels.shape[-2:]
    return F.pad(pixels, (0, padded_size(width) - width, 0, padded_size(height) - height)), (height, width)


def padded_size(pixels: int) -> int:
    return -(-pixels // SIZE_STEP) * SIZE_STEP


def _with_shorter_side(image: Image.Image, side: int) -> Image.Image:
    scale = side / min(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BILINEAR)


def _resized(image: Image.Image, mask: Tensor, side: int) -> tuple[Tensor, Tensor]:
    pixels = pil_to_tensor(_with_shorter_side(image, side))
    return pixels, F.interpolate(mask[None, None].float(), size=pixels.shape[-2:], mode="nearest-exact")[0, 0].long()


def _square(pixels: Tensor, classes: Tensor, size: int, x_share: float, y_share: float) -> tuple[Tensor, Tensor]:
    """A square at that share of the free room; what lies outside the image is black and ignored."""
    height, width = classes.shape
    padding = (0, max(0, size - width), 0, max(0, size - height))
    pixels, classes = F.pad(pixels, padding), F.pad(classes, padding, value=IGNORED)
    top = round(y_share * (classes.shape[0] - size))
    left = round(x_share * (classes.shape[1] - size))
    place = (..., slice(top, top + size), slice(left, left + size))
    return pixels[place], classes[place]
