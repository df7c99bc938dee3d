"""Images in webdataset shards, found by number through an index: read where they lie, never unpacked."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from disco_zoo.data.dataset import ImageSource, Origin, first_labelled
from disco_zoo.data.label_array import map_labels
from disco_zoo.data.passing_errors import is_passing
from disco_zoo.data.split_files import SYNONYMS, no_test_split, resolve_path
from disco_zoo.data.webdataset.index import (
    LABELS_FILE,
    ROW,
    ROWS_FILE,
    ShardIndex,
    find_index,
    left_out_of,
    read_index,
    split_word_of,
)
from disco_zoo.data.webdataset.scan import BLOCK_BYTES, member_at
from disco_zoo.errors import BadData

OPEN_SHARDS = 64
SIZE_FIELD = slice(124, 136)  # of a tar header


def open_shards(name: str, path: Path, split: str, dedicated: bool) -> ImageSource:
    """Open indexed shards for a split: those named for it, else all, or the indexed sibling folder for "test".

    Raises:
        BadData: nothing for this split, or shards were added or changed since they were indexed.
    """
    found = find_index(path)
    assert found is not None  # who calls this has looked
    index = read_index(found)
    index.require_complete()
    parts = [part for word in SYNONYMS[split] if (part := index.part(word))]
    if parts:
        return first_labelled(ShardSource(name, split, index, part) for part in parts)
    if dedicated:
        return ShardSource(name, split, index, range(len(index.shards)))
    if split == "train":
        if not (part := index.part("")):
            raise BadData(
                f"{name} has shards of a test set ({index.shards[0].name}) but none for training. Rename those."
            )
        return ShardSource(name, split, index, part)
    sibling = resolve_path(path, split, dedicated)
    if sibling == path or find_index(sibling) is None:
        raise no_test_split(name)
    return open_shards(name, sibling, split, dedicated=True)


class ShardSource(ImageSource):
    """The images of some shards of an index.

    Rows and labels are mapped from disk, so that opening ten million of them costs next to nothing and forked or
    spawned workers share the pages. A pickled copy opens the files again.

    Args:
        part: numbers of the shards, side by side.
    """

    def __init__(self, name: str, split: str, index: ShardIndex, part: range) -> None:
        index.require_unchanged(part)
        self.index, self.part = index, part
        self._first = index.first_row(part.start)
        self._images = sum(index.shards[number].images for number in part)
        labels = None
        if self._images and any(index.shards[number].is_labelled for number in part):
            labels = map_labels(str(index.path / LABELS_FILE), self._first, self._images).array
        super().__init__(name, split, labels, index.class_names)
        shards = [index.shards[number] for number in part]
        word = split_word_of(shards[0].name) if shards else ""
        self.origin = Origin(
            f"shards named {word}" if word else "",
            index.labels_from if self.labels is not None else "",
            left_out_of(shards),
        )
        self._reset()
        if not self._images:
            raise BadData(f"{name} holds no images: its shards are empty.")

    def _reset(self) -> None:
        self._rows: np.ndarray | None = None
        self._files: OrderedDict[int, int] = OrderedDict()  # open shards, the one used last at the end

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_rows": None, "_files": OrderedDict()}

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # bound here: at exit the module may be gone
        for file in getattr(self, "_files", {}).values():
            close(file)

    def __len__(self) -> int:
        return self._images

    def _row(self, index: int) -> tuple[int, int, int]:
        """Offset, size and shard of an image."""
        if self._rows is None:
            self._rows = np.memmap(
                self.index.path / ROWS_FILE, ROW, mode="r", offset=self._first * ROW.itemsize, shape=(self._images,)
            )
        offset, size, shard = self._rows[index].tolist()
        return offset, size, shard

    def _file(self, shard: int) -> int:
        if shard in self._files:
            self._files.move_to_end(shard)
            return self._files[shard]
        try:
            # Read at an offset, so that forked workers, which share the file's position, do not need it.
            self._files[shard] = os.open(self._path(shard), os.O_RDONLY)
        except OSError as error:
            if is_passing(error):
                raise
            raise self.index.stale(self.index.shards[shard].name, f"cannot be read ({error.strerror})") from error
        if len(self._files) > OPEN_SHARDS:
            os.close(self._files.popitem(last=False)[1])
        return self._files[shard]

    def _path(self, shard: int) -> Path:
        return self.index.folder / self.index.shards[shard].name

    def encoded(self, index: int) -> bytes:
        """Return the image file's bytes; the header before them tells whether they still are what was indexed."""
        offset, size, shard = self._row(index)
        block = os.pread(self._file(shard), BLOCK_BYTES + size, offset - BLOCK_BYTES)
        if len(block) != BLOCK_BYTES + size or _size_in(block) != size:
            raise self.index.stale(self.index.shards[shard].name, f"holds something else at byte {offset}")
        return block[BLOCK_BYTES:]

    def header(self, index: int) -> bytes:
        """As `encoded`, without keeping the shard open: a look from outside must not hide that it changes."""
        try:
            return self.encoded(index)
        finally:
            while self._files:
                os.close(self._files.popitem()[1])

    def places(self) -> tuple[Path, ...]:
        return tuple(self._path(number).resolve() for number in self.part)

    def path(self, index: int) -> str:
        """Return the member's name and the shard's."""
        offset, _, shard = self._row(index)
        return f"{member_at(self._path(shard), offset)} in {self.index.shards[shard].name}"

    def _hash_content(self, digest: hashlib._Hash) -> None:
        # Names and sizes of all images, hashed shard by shard when they were indexed.
        for number in self.part:
            digest.update(self.index.shards[number].sha256.encode())


def _size_in(block: bytes) -> int:
    """The size that a tar header names; -1 where it is no header."""
    try:
        size: int = tarfile.nti(block[SIZE_FIELD])  # type: ignore[attr-defined]
    except tarfile.TarError:
        return -1
    return size
