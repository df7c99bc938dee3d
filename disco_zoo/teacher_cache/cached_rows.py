"""The cached rows that a run reads, each checked against the view drawn again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from disco_zoo.errors import BadCache
from disco_zoo.teacher_cache.cache_dir import CacheFolder
from disco_zoo.teacher_cache.journal import pair_crc, view_crc


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
