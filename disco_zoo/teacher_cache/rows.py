"""The rows of a cache: their key, which of them a step replays, and reading them.

A cache holds M views of each image, its slots. A method that takes V of them a step has used each once after M / V
epochs; then they come again in another order, so that other views meet. Slot s is what epoch s of a run without a
cache draws first: a method of one view and M epochs sees the very views it would see without a cache.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from disco_zoo.core.random_streams import stream_seed
from disco_zoo.data.source_image import SourceImage
from disco_zoo.errors import BadCache
from disco_zoo.teacher_cache.cache_dir import CacheFolder
from disco_zoo.teacher_cache.journal import pair_crc, view_crc
from disco_zoo.transforms.view_recipes import View, draw_view

ROW_TYPE = "<f2"


@dataclass(frozen=True)
class CacheKey:
    """The key of one cache.

    Attributes:
        values: plain values by name; equal values mean equal rows.
    """

    values: dict[str, Any]

    @property
    def id(self) -> str:
        """Sixteen hex digits, the name of the folder."""
        return hashlib.sha256(json.dumps(self.values, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class SlotDraw:
    """Draws the views of a run's slots.

    Attributes:
        view: draws one.
        seed: of the run.
        kind: 0 for big views, 1 for small crops.
    """

    view: View
    seed: int
    kind: int = 0

    def __call__(self, image: SourceImage, index: int, slot: int) -> Tensor:
        """The view uint8 (3, S, S) in `slot` of image `index`."""
        return draw_view(self.view, image, self.seed, slot, index, self.kind)


def slots_of_step(seed: int, index: int, epoch: int, num_slots: int, num_views: int, kind: int = 0) -> list[int]:
    """The slots that image `index` replays in `epoch`: `num_views` different ones, which must divide `num_slots`."""
    first = epoch * num_views
    turn, place = divmod(first, num_slots)
    if turn == 0:
        return list(range(place, place + num_views))
    order = _permutation(num_slots, "slots", seed, index, turn, kind)
    return order[place : place + num_views]


def slots_of_companion(seed: int, index: int, epoch: int, num_slots: int, num_views: int) -> list[int]:
    """The slots of the companion of image `index`: drawn for the pair, as its views without a cache are."""
    return _permutation(num_slots, "companion slots", seed, index, epoch)[:num_views]


def _permutation(length: int, purpose: str, *key: int) -> list[int]:
    generator = np.random.Generator(np.random.PCG64(stream_seed(purpose, *key)))
    order: list[int] = generator.permutation(length).tolist()
    return order


@dataclass
class CachedRows:
    """The rows of a whole cache. It can be pickled: a worker opens the files again.

    Args:
        cache: whole for `slots` views of each image.
        slots: M, how many of them the run replays.
    """

    cache: CacheFolder
    slots: int

    def __post_init__(self) -> None:
        self._files: tuple[np.ndarray, np.ndarray] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": None}

    @property
    def width(self) -> int:
        return self.cache.width

    def row(self, image: int, slot: int) -> Tensor:
        """float16 (D,)."""
        return torch.from_numpy(np.array(self._open()[0][slot, image]))

    def belongs(self, row: Tensor, view: Tensor, image: int, slot: int) -> bool:
        """Whether `row` is the cached row of this view uint8 (3, S, S), drawn again: both equal to the bit."""
        return pair_crc(row.numpy(), view_crc(view)) == int(self._open()[1][slot, image])

    def _open(self) -> tuple[np.ndarray, np.ndarray]:
        if self._files is None:
            try:
                self._files = self.cache.rows(), self.cache.pair_crcs()
            except (OSError, ValueError) as error:
                raise BadCache(
                    f"teacher cache {self.cache.path.name} was removed while it was read. "
                    "Repeat the command with --resume"
                ) from error
        return self._files
