"""The views of blocks of images, drawn by a loader's workers for the teacher to look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from disco_zoo.core.loader import BoundedLoader
from disco_zoo.data.dataset import ImageSource
from disco_zoo.data.source_image import SourceImage
from disco_zoo.errors import UnreadableImage
from disco_zoo.teacher_cache.journal import BLOCK_IMAGES, Block, view_crc

Item = tuple[int, int, int]  # image, first slot, number of slots
Draw = Callable[[SourceImage, int, int], Tensor]
"""Maps image, number and slot to the view uint8 (3, S, S). It must survive pickling: workers use it."""


@dataclass(frozen=True)
class BlockViews:
    """All views of a block.

    Attributes:
        views: uint8 (slots, n, 3, S, S); zeros where the image cannot be read.
        crcs: uint32 (slots, n), 0 where the image cannot be read.
        unreadable: what was wrong with those, by number.
    """

    views: Tensor
    crcs: np.ndarray
    unreadable: dict[int, str]


class SlotViews(Dataset[tuple[Tensor, list[int], tuple[int, str] | None]]):
    """Some slots of an image: its views (slots, 3, S, S), their CRCs, and what was wrong with the image if any."""

    def __init__(self, source: ImageSource, draw: Draw, view_size: int) -> None:
        self.source, self.draw, self.view_size = source, draw, view_size

    def __getitem__(self, item: Item) -> tuple[Tensor, list[int], tuple[int, str] | None]:
        index, first_slot, slots = item
        numbers = range(first_slot, first_slot + slots)
        try:
            image = self.source.opened(index)
            views = [self.draw(image, index, slot) for slot in numbers]
        except UnreadableImage as error:
            nothing = torch.zeros((slots, 3, self.view_size, self.view_size), dtype=torch.uint8)
            return nothing, [0] * slots, (index, str(error))
        return torch.stack(views), [view_crc(view) for view in views], None


def block_loader(dataset: SlotViews, blocks: Sequence[Block], workers: int) -> BoundedLoader:
    """A loader of `BlockViews`, one block after another in their order."""
    images = len(dataset.source)
    batches = []
    for block in blocks:
        numbers = range(block.first, min(block.first + BLOCK_IMAGES, images))
        batches.append([(index, block.first_slot, block.slots) for index in numbers])
    return BoundedLoader(
        dataset,
        batch_sampler=batches,
        collate=_collate,
        workers=workers,
        prefetch_factor=1 if workers else None,  # a block of sixteen views at 224 px is 150 MB
    )


def _collate(items: list[tuple[Tensor, list[int], tuple[int, str] | None]]) -> BlockViews:
    views = torch.stack([views for views, _, _ in items], dim=1)
    crcs = np.array([crcs for _, crcs, _ in items], dtype=np.uint32).T
    return BlockViews(views, crcs, dict(fault for _, _, fault in items if fault is not None))
