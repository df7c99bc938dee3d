"""One cache on disk.

    <caches>/<id>/cache.json     the key, and what people want to know
                  rows.f16       float16, slot by slot: (slots, images, width)
                  pairs.u32      CRC-32 of each view's pixels and its row: (slots, images)
                  done-0.jsonl   which blocks of both are finished (`journal.py`)

`<caches>` is $DISCO_ZOO_CACHE, else $XDG_CACHE_HOME/disco-zoo, else ~/.cache/disco-zoo, and in it `teacher_views`. Rows
that the journals do not name are never read.
"""

from __future__ import annotations

import errno
import functools
import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from disco_zoo.core.files import cache_home, failed_writes_as, write_whole
from disco_zoo.errors import BadCache
from disco_zoo.teacher_cache.journal import BLOCK_IMAGES, Block, Done, Journal, block_crc, pair_crc

ROWS, PAIRS, FACTS = "rows.f16", "pairs.u32", "cache.json"


def caches_home() -> Path:
    """The folder of all caches; it need not exist."""
    return cache_home() / "teacher_views"


ELSEWHERE = "set DISCO_ZOO_CACHE to another folder"


def writing_errors(folder: Path, elsewhere: str = ELSEWHERE) -> AbstractContextManager[None]:
    """Say in one line why a cache cannot be written.

    Args:
        elsewhere: how to put it on another disk.

    Raises:
        BadCache: no room or no permission; what was finished stays.
    """
    remedy = f"Make room, or {elsewhere}; then repeat the command: what is finished is kept"
    return failed_writes_as(BadCache, f"cannot write the teacher cache in {folder}", remedy)


class CacheFolder:
    """A cache, complete or being built.

    Args:
        path: its folder.
        elsewhere: how to put it on another disk, for the message that there is no room.
    """

    def __init__(self, path: Path, elsewhere: str = ELSEWHERE) -> None:
        self.path, self.elsewhere = path, elsewhere
        self.lock = FileLock(path / ".lock")

    @functools.cached_property
    def facts(self) -> dict[str, Any]:
        """The content of cache.json: `key`, `images`, `width`, `title`, `data`, `created`.

        Raises:
            BadCache: there is none, or it is damaged.
        """
        try:
            facts: dict[str, Any] = json.loads((self.path / FACTS).read_text(encoding="utf-8"))
            if facts["images"] < 1 or facts["width"] < 1 or not isinstance(facts["key"], dict):
                raise ValueError("a cache of nothing")
            return facts
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise BadCache(
                f"{self.path} is no teacher cache, or a damaged one. Type: disco-zoo cache rm {self.path.name}"
            ) from error

    @property
    def images(self) -> int:
        return int(self.facts["images"])

    @property
    def width(self) -> int:
        return int(self.facts["width"])

    @property
    def journal(self) -> Journal:
        return Journal(self.path, self.images)

    @property
    def slots_on_disk(self) -> int:
        """Views of each image that the files have room for."""
        sizes = (self._size(ROWS) // (self.images * self.width * 2), self._size(PAIRS) // (self.images * 4))
        return min(sizes)

    @property
    def size_bytes(self) -> int:
        """Of all its files."""
        return sum(path.stat().st_size for path in self.path.iterdir() if path.is_file())

    def _size(self, name: str) -> int:
        path = self.path / name
        return path.stat().st_size if path.is_file() else 0

    def create(self, facts: dict[str, Any], slots: int) -> None:
        """Make the folder if it is not there, and room for `slots` views of each image.

        Raises:
            BadCache: no room or no permission.
        """
        with writing_errors(self.path, self.elsewhere):
            self.path.mkdir(parents=True, exist_ok=True)
            if not self._is_of(facts):
                self._begin(facts)
            if lost := [done for done in self.journal.read() if done.first_slot + done.slots > self.slots_on_disk]:
                self.strike_out(lost)  # a file was cut: what grows in its place is not what was noted
            _reserve(self.path / ROWS, slots * self.images * self.width * 2)
            _reserve(self.path / PAIRS, slots * self.images * 4)
            (self.path / "views.u32").unlink(missing_ok=True)  # what stood for the pairs before rows were checked

    def serves(self, facts: dict[str, Any], slots: int) -> bool:
        """Whether all that a run with these facts and `slots` views of each image reads is there."""
        return self._is_of(facts) and not self.missing(slots).any()

    def require_seen(self, facts: dict[str, Any]) -> None:
        """Refuse a folder that the first process made and this one does not see.

        Raises:
            BadCache: the processes do not share the disk.
        """
        self.__dict__.pop("facts", None)
        if not self._is_of(facts):
            raise BadCache(f"{self.path} is not on a disk that all processes share. For one: {self.elsewhere}")

    def _is_of(self, facts: dict[str, Any]) -> bool:
        try:
            return all(self.facts[name] == facts[name] for name in ("key", "images", "width"))
        except (BadCache, LookupError):
            return False

    def _begin(self, facts: dict[str, Any]) -> None:
        """Start afresh, also where the facts were damaged: whatever was noted under them counts no more."""
        for path in self.path.glob("done-*.jsonl"):
            path.unlink()
        text = json.dumps(facts, indent=1, ensure_ascii=False)
        write_whole(self.path / FACTS, lambda partial: partial.write_text(text, encoding="utf-8"))
        self.__dict__.pop("facts", None)

    def missing(self, slots: int) -> np.ndarray:
        """bool (blocks, slots): what a run with `slots` views still lacks."""
        done = self.journal.coverage(max(slots, self.slots_on_disk))
        done[:, self.slots_on_disk :] = False  # a file that was cut
        missing: np.ndarray = ~done[:, :slots]
        return missing

    def rows(self) -> np.ndarray:
        """float16 (slots, images, width), memory-mapped."""
        shape = (self.slots_on_disk, self.images, self.width)
        return np.memmap(self.path / ROWS, dtype="<f2", mode="r", shape=shape)

    def pair_crcs(self) -> np.ndarray:
        """uint32 (slots, images), memory-mapped: `pair_crc` of each view and its row."""
        return np.memmap(self.path / PAIRS, dtype="<u4", mode="r", shape=(self.slots_on_disk, self.images))

    def write(self, block: Block, rows: np.ndarray, crcs: np.ndarray, unreadable: dict[int, str], writer: int) -> None:
        """Store a block and note it.

        Args:
            rows: float16 (slots, n, width).
            crcs: of the views, uint32 (slots, n).
            unreadable: what was wrong with images that could not be read, by number.
            writer: rank of this process.

        Raises:
            BadCache: no room or no permission; what was noted before stays.
        """
        rows = rows.astype("<f2")
        pairs = np.array([[*map(pair_crc, *slot)] for slot in zip(rows, crcs, strict=True)], dtype="<u4")
        with writing_errors(self.path, self.elsewhere):
            for name, values in ((ROWS, rows), (PAIRS, pairs)):
                self._write_slots(name, block.first, block.first_slot, values)
            named = {str(index): text for index, text in unreadable.items()}
            self.journal.append(Done(block.first, block.first_slot, len(rows), block_crc(rows, pairs), named), writer)

    def _write_slots(self, name: str, first: int, first_slot: int, values: np.ndarray) -> None:
        row_bytes = values[0, 0].nbytes
        with (self.path / name).open("rb+", buffering=0) as file:
            for number, part in enumerate(values):
                file.seek(((first_slot + number) * self.images + first) * row_bytes)
                _write_all(file, np.ascontiguousarray(part).tobytes())
            os.fsync(file.fileno())

    def damaged(self, among: list[Done] | None = None) -> list[Done]:
        """Noted blocks whose rows are not those that were written: of all, or of some."""
        noted = list(self.journal.read()) if among is None else among
        if not self.slots_on_disk:
            return noted
        rows, crcs, found = self.rows(), self.pair_crcs(), []
        for done in noted:
            last_slot = done.first_slot + done.slots
            place = slice(done.first_slot, last_slot), slice(done.first, done.first + BLOCK_IMAGES)
            if last_slot > len(rows) or block_crc(rows[place], crcs[place]) != done.crc:
                found.append(done)
        return found

    def strike_out(self, damaged: list[Done]) -> None:
        """Forget blocks, so that the next build computes them again.

        Raises:
            BadCache: the journal cannot be written.
        """
        with writing_errors(self.path, self.elsewhere):
            self.journal.rewrite([done for done in self.journal.read() if done not in damaged])

    @contextmanager
    def claimed(self, while_busy: Callable[[], None] | None = None) -> Iterator[None]:
        """Hold the cache for changing it.

        Args:
            while_busy: called again and again while another process holds it; None raises instead.

        Raises:
            BadCache: another process holds it, or the folder cannot be written.
        """
        while not self._acquired():
            if while_busy is None:
                raise BadCache(f"teacher cache {self.path.name} is being built by another process. Wait for it")
            while_busy()
        try:
            yield
        finally:
            self.lock.release()

    def _acquired(self) -> bool:
        with writing_errors(self.path, self.elsewhere):
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                self.lock.acquire(timeout=0)
            except Timeout:
                return False
            return True


def _write_all(file: Any, content: bytes) -> None:
    """An unbuffered write may be short."""
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]


def _reserve(path: Path, size: int) -> None:
    """Let a file be at least `size` bytes, with the room for them taken now rather than found missing in mid-work."""
    path.touch()
    former = path.stat().st_size
    if former >= size:
        return
    with path.open("rb+") as file:
        try:
            _allocate(file.fileno(), former, size)
        except OSError:
            file.truncate(former)
            raise


def _allocate(descriptor: int, former: int, size: int) -> None:
    """Take the room; where the file system cannot say, make the file longer and hope."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, former, size - former)
            return
        except OSError as error:
            if error.errno not in (errno.EBADF, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
    os.ftruncate(descriptor, size)
