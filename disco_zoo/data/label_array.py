"""Labels as one array: four bytes an image, where a list of Python numbers takes eight or more and forks copy it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

CHUNK = 2**16


class Labels(Sequence[int]):
    """A sequence of Python ints, equal to a list of the same numbers.

    A part of a memory-mapped file stays one: it is read where it is looked at, and a pickle holds its place alone.

    Args:
        values: one whole number an image.
    """

    def __init__(self, values: Sequence[int] | NDArray[Any] | Labels) -> None:
        array = values.array if isinstance(values, Labels) else values
        if not isinstance(array, np.ndarray):
            array = np.asarray(array, dtype=np.int64)
        if array.dtype.itemsize > 4 and len(array) and _fits(array):
            array = array.astype(np.int32)
        self.array: NDArray[Any] = array

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, index: int) -> int: ...

    @overload
    def __getitem__(self, index: slice) -> Labels: ...

    def __getitem__(self, index: int | slice) -> int | Labels:
        return Labels(np.asarray(self.array[index])) if isinstance(index, slice) else int(self.array[index])

    def __iter__(self) -> Iterator[int]:
        for first in range(0, len(self.array), CHUNK):
            yield from self.array[first : first + CHUNK].tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.array, dtype=dtype) if copy else np.asarray(self.array, dtype=dtype)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (Labels, list, tuple)):
            return NotImplemented
        return bool(np.array_equal(self.array, np.asarray(other)))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(map(str, self.array[:6].tolist()))
        return f"Labels([{shown}{', ...' if len(self) > 6 else ''}])"

    def __reduce__(self) -> tuple[Any, ...]:
        mapped = self.array
        if isinstance(mapped, np.memmap) and mapped.filename is not None:
            return _map_labels, (str(mapped.filename), mapped.dtype.str, mapped.offset, len(mapped))
        return Labels, (np.asarray(self.array),)

    def take(self, indices: NDArray[np.int64]) -> Labels:
        return Labels(np.asarray(self.array[indices]))

    @property
    def largest(self) -> int:
        return int(self.array.max()) if len(self.array) else -1

    @property
    def num_negative(self) -> int:
        """How many say that there is no label."""
        return sum(int((self.array[first : first + CHUNK] < 0).sum()) for first in range(0, len(self.array), CHUNK))

    def chunks(self) -> Iterator[bytes]:
        """The labels as little-endian int64, a piece at a time."""
        for first in range(0, len(self.array), CHUNK):
            yield np.asarray(self.array[first : first + CHUNK], dtype="<i8").tobytes()


def map_labels(file: str, first: int, count: int) -> Labels:
    """The labels `first` to `first + count` of a file of little-endian int32."""
    return _map_labels(file, "<i4", 4 * first, count)


def _map_labels(file: str, dtype: str, offset: int, count: int) -> Labels:
    return Labels(np.memmap(file, dtype, mode="r", offset=offset, shape=(count,)))


def _fits(array: NDArray[Any]) -> bool:
    limits = np.iinfo(np.int32)
    return bool(limits.min <= array.min() and array.max() <= limits.max)
