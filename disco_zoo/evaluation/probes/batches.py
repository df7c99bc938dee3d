"""Augmented batches of labelled images for a probe, fixed by (seed, epoch)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from disco_zoo.core.loader import BoundedLoader
from disco_zoo.core.random_streams import stream_generator
from disco_zoo.core.schema import Interpolation
from disco_zoo.data.dataset import ImageSource, UnreadableImage
from disco_zoo.data.source_image import SourceImage
from disco_zoo.data.unreadable import UnreadableTally, unreadable_limit, use_or_replace
from disco_zoo.evaluation.probes.settings import ProbeSettings
from disco_zoo.transforms.ops import RandomCrop, RandomFlip
from disco_zoo.transforms.view_recipes import RandomView, View, draw_view

Batch = tuple[Tensor, Tensor, list[UnreadableImage]]


def probe_view(size: int, crop_scale: tuple[float, float], interpolation: Interpolation) -> View:
    """A-plain of spec 1.2, uint8 (3, size, size): random resized crop of 3/4 to 4/3, horizontal flip."""
    crop = RandomCrop(size, crop_scale, (3 / 4, 4 / 3), interpolation)
    return RandomView(crop, (RandomFlip(0.5),))


class ProbeBatches:
    """The batches of any epoch of a labelled source; an unreadable image is replaced by the next readable one.

    Args:
        labels: one of each image.
        settings: sizes, seed, batch and workers.
    """

    def __init__(self, source: ImageSource, labels: Sequence[int], settings: ProbeSettings) -> None:
        view = probe_view(settings.image_size, settings.crop_scale, settings.interpolation)
        self._dataset = LabeledViews(source, labels, view, settings.seed)
        self._settings, self._size = settings, len(source)
        self._tally = UnreadableTally(unreadable_limit(len(source)))

    @property
    def batch_size(self) -> int:
        return self._settings.batch_size

    def order(self, epoch: int) -> Tensor:
        """The images of an epoch one after another, int64 (N,)."""
        return torch.randperm(self._size, generator=stream_generator("linear_order", self._settings.seed, epoch))

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The epoch's batches in an order fixed by (seed, epoch): uint8 (B, 3, S, S) and labels int64 (B,).

        Raises:
            BadData: too many images cannot be read.
        """
        loader = BoundedLoader(
            self._dataset,
            batch_size=self.batch_size,
            sampler=[(epoch, index) for index in self.order(epoch).tolist()],
            workers=self._settings.workers,
            collate=collate_labeled,
        )
        for images, labels, errors in loader:
            for error in errors:
                self._tally.add(error.index, str(error))
            self._tally.check()
            yield images, labels


class LabeledViews(Dataset[tuple[Tensor, int, UnreadableImage | None]]):
    """Item (epoch, i): a view of image i, uint8 (3, S, S), its label, and the error if i is unreadable.

    The epoch travels with the index, so that one set of workers serves any epoch. An unreadable image is replaced by
    the next one that can be read, with that one's label.
    """

    def __init__(self, source: ImageSource, labels: Sequence[int], view: View, seed: int) -> None:
        self.source, self.labels, self.view, self.seed = source, labels, view, seed

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int, UnreadableImage | None]:
        epoch, index = key

        def draw(image: SourceImage, used: int) -> Tensor:
            return draw_view(self.view, image, self.seed, epoch, used, 0)

        view, used, error = use_or_replace(self.source, index, draw)
        return view, self.labels[used], error


def collate_labeled(items: list[tuple[Tensor, int, UnreadableImage | None]]) -> Batch:
    images, labels, errors = zip(*items, strict=True)
    return torch.stack(images), torch.tensor(labels), [error for error in errors if error is not None]
