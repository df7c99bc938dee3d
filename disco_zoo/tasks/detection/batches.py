"""Annotated images as batches for torchvision's detectors. The order and the mirroring depend on the seed alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from torchvision.transforms.v2.functional import pil_to_tensor

from disco_zoo.core.loader import BoundedLoader, unchanged
from disco_zoo.core.random_streams import stream_generator
from disco_zoo.data.pixels.bit_depth import ALONE, ValueRanges
from disco_zoo.data.source_image import open_image
from disco_zoo.errors import CannotRead, UnreadableImage, own_words
from disco_zoo.tasks.dense_task import Batch
from disco_zoo.tasks.detection.annotations import AnnotatedImage, AnnotatedSet, mask_of

Target = dict[str, Tensor]


def read_image(image: AnnotatedImage, index: int, ranges: ValueRanges = ALONE) -> Tensor:
    """Pixels uint8 (3, height, width), turned as its annotation sees them.

    Raises:
        UnreadableImage: no whole image.
        CannotRead: disk or network failed.
    """
    try:
        return pil_to_tensor(open_image(image.path, (image.width, image.height), ranges))
    except CannotRead:
        raise
    except Exception as error:  # decoders of damaged bytes raise nearly anything
        raise UnreadableImage(index, str(image.path), own_words(error)) from error


def target_of(image: AnnotatedImage, masks: bool) -> Target:
    """Boxes float32 (N, 4), labels int64 (N,) from 1 (0 is background), and masks uint8 (N, H, W), without crowds."""
    kept = [instance for instance in image.instances if instance.learn]
    target = {
        "boxes": torch.tensor([instance.box for instance in kept], dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor([instance.label + 1 for instance in kept], dtype=torch.int64),
    }
    if masks:
        drawn = [mask_of(instance.outline, image.height, image.width) for instance in kept]
        empty = torch.zeros(0, image.height, image.width, dtype=torch.uint8)
        target["masks"] = torch.stack(drawn) if drawn else empty
    return target


def mirrored(pixels: Tensor, target: Target) -> tuple[Tensor, Target]:
    """Left and right exchanged, in image, boxes and masks."""
    width = pixels.shape[-1]
    x1, y1, x2, y2 = target["boxes"].unbind(1)
    flipped = {**target, "boxes": torch.stack([width - x2, y1, width - x1, y2], dim=1)}
    if "masks" in target:
        flipped["masks"] = target["masks"].flip(-1)
    return pixels.flip(-1), flipped


_Item = tuple[Tensor | None, Target, int, str]


class TrainImages(Dataset[_Item]):
    """Item (epoch, number): that image of `chosen`, mirrored or not by the stream of (seed, epoch, number)."""

    def __init__(self, annotated: AnnotatedSet, seed: int, masks: bool) -> None:
        self.images, self.ranges, self.seed, self.masks = annotated.images, annotated.ranges, seed, masks
        # As in detectron2: an image without an object teaches only background.
        self.chosen = [n for n, image in enumerate(annotated.images) if any(i.learn for i in image.instances)]

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, key: tuple[int, int]) -> _Item:
        epoch, number = key
        index = self.chosen[number]
        image = self.images[index]
        try:
            pixels = read_image(image, index, self.ranges)
        except UnreadableImage as error:
            return None, {}, index, str(error)
        target = target_of(image, self.masks)
        generator = stream_generator("detection_mirror", self.seed, epoch, number)
        if torch.rand((), generator=generator).item() < 0.5:
            pixels, target = mirrored(pixels, target)
        return pixels, target, index, ""


class StepKeys(Sampler[list[tuple[int, int]]]):
    """The keys of each step's batch from `first_step` on: epochs laid end to end, each in its own random order."""

    def __init__(self, num_images: int, batch_size: int, seed: int, first_step: int, last_step: int) -> None:
        self.num_images, self.batch_size, self.seed = num_images, batch_size, seed
        self.steps = range(first_step, last_step)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        known, order = -1, []
        for step in self.steps:
            keys = []
            for position in range(step * self.batch_size, (step + 1) * self.batch_size):
                epoch, place = divmod(position, self.num_images)
                if epoch != known:
                    generator = stream_generator("detection_order", self.seed, epoch)
                    known, order = epoch, torch.randperm(self.num_images, generator=generator).tolist()
                keys.append((epoch, order[place]))
            yield keys


def train_loader(images: Any, batch_size: int, first_step: int, last_step: int, workers: int) -> Any:
    """Batches of the steps from `first_step` up to `last_step`.

    Args:
        images: `TrainImages`, or another data set whose items are pixels or None, a target, an index and a fault.
    """
    return BoundedLoader(
        images,
        batch_sampler=StepKeys(len(images), batch_size, images.seed, first_step, last_step),
        collate=_collate,
        workers=workers,
    )


class ImagesInOrder(Dataset[tuple[Tensor | None, int, str]]):
    """Item i: (uint8 (3, H, W) or None, i, what was wrong)."""

    def __init__(self, annotated: AnnotatedSet) -> None:
        self.images, self.ranges = annotated.images, annotated.ranges

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor | None, int, str]:
        try:
            return read_image(self.images[index], index, self.ranges), index, ""
        except UnreadableImage as error:
            return None, index, str(error)


def in_order(annotated: AnnotatedSet, batch_size: int, workers: int) -> Any:
    """Batches as lists of `ImagesInOrder`'s items."""
    return BoundedLoader(ImagesInOrder(annotated), batch_size=batch_size, collate=unchanged, workers=workers)


def _collate(items: list[tuple[Tensor | None, Any, int, str]]) -> Batch:
    """Images, targets, and index -> what was wrong with those that could not be read."""
    images = [pixels for pixels, _, _, _ in items if pixels is not None]
    targets = [target for pixels, target, _, _ in items if pixels is not None]
    return images, targets, {index: fault for pixels, _, index, fault in items if pixels is None}
