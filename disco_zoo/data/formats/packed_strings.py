"""File names as one block of bytes: ten million paths as Python strings would take more than a gigabyte."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

SORTED_AT_ONCE = 2**16


class PackedNames(Sequence[str]):
    """Names in a given order.

    Args:
        names: read once, one after the other.
    """

    def __init__(self, names: Iterable[str]) -> None:
        block, ends = bytearray(), [np.zeros(1, dtype=np.int64)]
        pending: list[int] = []
        for name in names:
            # Bytes in this encoding sort as the strings do, and also names that are no valid text come back whole.
            block += name.encode("utf-8", "surrogatepass")
            pending.append(len(block))
            if len(pending) == SORTED_AT_ONCE:
                ends.append(np.asarray(pending, dtype=np.int64))
                pending = []
        ends.append(np.asarray(pending, dtype=np.int64))
        self._block, self._ends = block, np.concatenate(ends)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:  # type: ignore[override]
        return self._bytes(range(len(self))[index]).decode("utf-8", "surrogatepass")

    def _bytes(self, index: int) -> bytes:
        return bytes(self._block[self._ends[index] : self._ends[index + 1]])

    def sorted_positions(self) -> Iterator[int]:
        """The positions of the names in the names' sorted order; equal names in the order they have here.

        Parts are sorted and then merged, so that no more than one part exists as Python objects.
        """
        firsts = range(0, len(self), SORTED_AT_ONCE)
        parts = [self._sorted_part(first) for first in firsts]
        yield from heapq.merge(*(map(int, part) for part in parts), key=self._bytes)

    def _sorted_part(self, first: int) -> np.ndarray:
        positions = range(first, min(first + SORTED_AT_ONCE, len(self)))
        return np.asarray(sorted(positions, key=self._bytes), dtype=np.int64)
