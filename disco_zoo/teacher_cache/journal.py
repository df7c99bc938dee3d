"""The journal of a cache: one line for each block of images, with its checksum, appended once its rows are on disk.

Each process appends to a file of its own. A line that a crash cut short, or that does not fit, counts for nothing:
its block is computed again.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor


def view_crc(view: Tensor) -> int:
    """CRC-32 of a view's pixels, by which a replayed view is known to be the first one, bit for bit."""
    return zlib.crc32(view.contiguous().numpy().data)


def pair_crc(row: np.ndarray, view_crc: int) -> int:
    """CRC-32 of a view's pixels, whose own is known, and after them its row float16 (width,)."""
    return zlib.crc32(np.ascontiguousarray(row, dtype="<f2").data, int(view_crc))


def block_crc(rows: np.ndarray, pairs: np.ndarray) -> int:
    """CRC-32 of rows float16 (slots, n, width) and of their pairs' CRCs uint32 (slots, n)."""
    crc = zlib.crc32(np.ascontiguousarray(rows, dtype="<f2").tobytes())
    return zlib.crc32(np.ascontiguousarray(pairs, dtype="<u4").tobytes(), crc)


BLOCK_IMAGES = 64


@dataclass(frozen=True)
class Block:
    """The views `first_slot` to `first_slot + slots - 1` of up to 64 images from number `first` on."""

    first: int
    first_slot: int
    slots: int


@dataclass(frozen=True)
class Done:
    """A finished block.

    Attributes:
        crc: CRC-32 of what was written.
        unreadable: what was wrong with images that could not be read, by number; their rows are zeros.
    """

    first: int
    first_slot: int
    slots: int
    crc: int
    unreadable: dict[str, str] = field(default_factory=dict)


class Journal:
    """The journals of a cache's folder.

    Args:
        folder: of the cache.
        images: of the data.
    """

    def __init__(self, folder: Path, images: int) -> None:
        self.folder, self.images = folder, images

    def append(self, done: Done, writer: int) -> None:
        """Add a line to the journal of process `writer`, on disk when this returns."""
        path = self.folder / f"done-{writer}.jsonl"
        with path.open("ab+") as file:
            if file.tell() and not _ends_with_newline(file):
                file.write(b"\n")  # what a crash cut short must not swallow this line
            file.write((json.dumps(asdict(done)) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> Iterator[Done]:
        """All finished blocks that make sense."""
        for line in self._lines():
            done = _parsed(line)
            if done is not None and 0 <= done.first < self.images and done.first % BLOCK_IMAGES == 0:
                yield done

    def _lines(self) -> list[bytes]:
        while True:
            try:
                paths = sorted(self.folder.glob("done-*.jsonl"))
                return [line for path in paths for line in path.read_bytes().split(b"\n")]
            except FileNotFoundError:  # another process rewrites them: look again
                time.sleep(0.01)

    def rewrite(self, kept: list[Done]) -> None:
        """Replace all journals by one with these lines."""
        partial = self.folder / ".done.partial"
        with partial.open("wb") as file:
            file.write("".join(json.dumps(asdict(done)) + "\n" for done in kept).encode())
            file.flush()
            os.fsync(file.fileno())
        former = list(self.folder.glob("done-*.jsonl"))
        partial.replace(self.folder / "done-0.jsonl")
        for path in former:
            if path.name != "done-0.jsonl":
                path.unlink()

    def coverage(self, slots: int) -> np.ndarray:
        """bool (blocks, slots): which are done."""
        done = np.zeros((num_blocks(self.images), slots), dtype=bool)
        for entry in self.read():
            done[entry.first // BLOCK_IMAGES, entry.first_slot : entry.first_slot + entry.slots] = True
        return done

    def unreadable(self) -> dict[int, str]:
        """The error of each unreadable image, by its number."""
        return {int(index): text for done in self.read() for index, text in done.unreadable.items()}


def num_blocks(images: int) -> int:
    return -(-images // BLOCK_IMAGES)


def block_of(image: int) -> int:
    """The first image of the block that holds `image`."""
    return image - image % BLOCK_IMAGES


def missing_blocks(missing: np.ndarray, slots_a_block: int) -> list[Block]:
    """What of bool (blocks, slots) is left to do, in runs of up to `slots_a_block` neighbouring slots."""
    blocks = []
    for number, row in enumerate(missing):
        slots = np.flatnonzero(row).tolist()
        while slots:
            run = 1
            while run < min(len(slots), slots_a_block) and slots[run] == slots[0] + run:
                run += 1
            blocks.append(Block(number * BLOCK_IMAGES, slots[0], run))
            slots = slots[run:]
    return blocks


def _ends_with_newline(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return bool(file.read(1) == b"\n")


def _parsed(line: bytes) -> Done | None:
    try:
        values = json.loads(line)
        done = Done(**values)
    except (ValueError, TypeError):  # cut short, or no line of ours
        return None
    numbers = (done.first, done.first_slot, done.slots, done.crc)
    return done if all(type(number) is int and number >= 0 for number in numbers) else None
