"""The training batches of a fine-tuning, each fixed by (seed, step): images, labels, and how they are mixed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Sampler
from torchvision.transforms import v2

from disco_zoo.core.loader import BoundedLoader
from disco_zoo.core.random_streams import drawing_from
from disco_zoo.evaluation.probes.batches import LabeledViews, collate_labeled
from disco_zoo.tasks.finetune.settings import steps_per_epoch
from disco_zoo.training.epoch_loader import epoch_order
from disco_zoo.transforms.eval import eval_transform
from disco_zoo.transforms.view_recipes import OfWholeImage, View, plain_view

LIGHT_CROP, STRONG_CROP = (0.35, 1.0), (0.2, 1.0)  # area of a crop as a share of the image
ERASE_PROBABILITY = 0.25


def training_view(augment: str, size: int, resize_size: int) -> View:
    """The view of a training image, uint8 (3, size, size).

    - `none`: as for evaluation, resized and cropped in the middle;
    - `light`: random resized crop and horizontal flip;
    - `strong`: tighter crops, flip, TrivialAugment (Müller and Hutter 2021) and random erasing (Zhong et al. 2017).
    """
    if augment == "none":
        return OfWholeImage(eval_transform(size, resize_size))
    if augment == "light":
        return plain_view(size, crop_scale=LIGHT_CROP)
    strong = [
        v2.RandomResizedCrop(size, scale=STRONG_CROP, antialias=True),
        v2.RandomHorizontalFlip(),
        v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR),
        v2.PILToTensor(),
        v2.RandomErasing(p=ERASE_PROBABILITY),
    ]
    return OfWholeImage(v2.Compose(strong))


class StepBatches(Sampler[list[tuple[int, int]]]):
    """The batches of steps `first` to `last` (not included) as lists of (epoch, image).

    An epoch is cut into parts of nearly equal size, none larger than `batch_size`. No image is left out, and no
    batch is a remainder of one image, which BatchNorm could not work with.
    """

    def __init__(self, num_images: int, batch_size: int, *, seed: int, first: int, last: int) -> None:
        self.num_images, self.seed, self.first, self.last = num_images, seed, first, last
        self.per_epoch = steps_per_epoch(num_images, batch_size)

    def __len__(self) -> int:
        return max(0, self.last - self.first)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.first, self.last):
            epoch, place = divmod(step, self.per_epoch)
            if step == self.first or place == 0:
                parts = torch.tensor_split(epoch_order(self.num_images, self.seed, epoch), self.per_epoch)
            yield [(epoch, index) for index in parts[place].tolist()]


def training_loader(dataset: LabeledViews, batches: StepBatches, workers: int) -> BoundedLoader:
    """One loader for all steps, so that workers start once: small sets have epochs of a second."""
    return BoundedLoader(dataset, batch_sampler=batches, collate=collate_labeled, workers=workers)


def mixed(
    images: Tensor, labels: Tensor, num_classes: int, *, mixup: float, cutmix: float, seed: int, step: int
) -> tuple[Tensor, Tensor]:
    """Mix a batch of normalised images (B, 3, S, S) with itself, one place further.

    Args:
        labels: int64 (B,).
        mixup, cutmix: α of Beta(α, α), from which the share of the first image is drawn (Zhang et al. 2017; Yun et
            al. 2019). With both, each batch takes one of them at random; with neither nothing is mixed.

    Returns:
        Images, and the share of each class in them, float32 (B, K).
    """
    choices = [kind(alpha=alpha, num_classes=num_classes) for kind, alpha in _kinds(mixup, cutmix)]
    if not choices:
        return images, F.one_hot(labels, num_classes).float()
    with drawing_from("mix", seed, step):
        mix = choices[int(torch.randint(len(choices), (1,)))]
        images, shares = mix(images, labels)
    return images, shares


def _kinds(mixup: float, cutmix: float) -> Sequence[tuple[Any, float]]:
    return [(kind, alpha) for kind, alpha in ((v2.MixUp, mixup), (v2.CutMix, cutmix)) if alpha > 0]
