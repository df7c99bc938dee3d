"""Making the index of a folder of shards: shard by shard, going on where a build was cut off, visible when whole.

A build works in a hidden folder beside the index. Rows are appended there, and a line of `journal.jsonl` says up to
where they count. What of a label is known grows while shards are read (class names in the order they come), so
labels are numbered for good at the end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from filelock import FileLock, Timeout

from disco_zoo.core.files import failed_writes_as, require_folder, write_whole
from disco_zoo.data.class_folders import classes_of
from disco_zoo.data.file_tree import natural_order
from disco_zoo.data.image_files import LeftOut, as_text
from disco_zoo.data.label_array import CHUNK
from disco_zoo.data.webdataset.index import (
    FACTS_FILE,
    FORMAT,
    INDEX_FOLDER,
    LABEL_BYTES,
    LABELS_FILE,
    ROW,
    ROWS_FILE,
    Shard,
    ShardIndex,
    find_index,
    index_facts,
    read_index,
    shard_names,
)
from disco_zoo.data.webdataset.scan import NO_LABEL, folder_of, samples
from disco_zoo.errors import BadData, Busy, CannotWrite, shown

GIVEN, FOLDERS = "given.bin", "folders.bin"  # labels as samples name them (-1: none), and as folders do
PIECES = {ROWS_FILE: ROW.itemsize, GIVEN: LABEL_BYTES, FOLDERS: LABEL_BYTES}
JOURNAL = "journal.jsonl"
COMMIT_SECONDS = 2.0
Progress = Callable[[int, int], None]
"""Called with (shards done, shards in total)."""


def build_index(folder: Path, out: Path | None = None, progress: Progress | None = None) -> tuple[ShardIndex, bool]:
    """Index the .tar shards below a folder, or find that the index there still holds.

    Args:
        folder: of the shards.
        out: folder of the index; None for one inside `folder`.

    Returns:
        The index, and whether it was made now.

    Raises:
        BadData: no shards, a damaged one, or labels that are words here and numbers there.
        CannotWrite: no room, no permission, or something else at `out`.
        Busy: another build of this index is at work.
    """
    names = shard_names(folder)
    target = out or folder / INDEX_FOLDER
    if target.exists() and find_index(target) != target and any(target.iterdir() if target.is_dir() else [target]):
        raise CannotWrite(f"{target} holds something else than an index. Choose another --out")
    if (former := _still_good(target, folder, names)) is not None:
        return former, False
    partial = target.parent / f".{target.name}.partial"
    require_folder(target.parent)
    lock = FileLock(target.parent / f".{target.name}.lock")
    remedy = "Make room, or choose --out, and repeat the command"
    try:
        with failed_writes_as(CannotWrite, f"cannot write {target}", remedy), lock.acquire(timeout=0):
            if _still_good(partial, folder, names) is None:
                partial.mkdir(exist_ok=True)
                build = _Build(partial, folder, names)
                build.run(progress or (lambda done, total: None))
                build.finish(".." if target.resolve().parent == folder.resolve() else str(folder.resolve()))
            _put_in_place(partial, target)
    except Timeout as error:
        raise Busy(f"another process is indexing {folder}. Wait for it, then repeat the command") from error
    return read_index(target), True


def _still_good(target: Path, folder: Path, names: list[str]) -> ShardIndex | None:
    try:
        index = read_index(target)
        index.require_unchanged(range(len(index.shards)))
    except BadData:
        return None
    same = [shard.name for shard in index.shards] == names and index.folder == folder.resolve()
    return index if same and all(_is_untouched(folder, shard) for shard in index.shards) else None


def _is_untouched(folder: Path, shard: Shard) -> bool:
    found = (folder / shard.name).stat()
    return (found.st_size, found.st_mtime_ns) == (shard.size_bytes, shard.modified_ns)


def _put_in_place(partial: Path, target: Path) -> None:
    """Rename the finished folder without what only its build needed; who has the old index open keeps its files."""
    for name in (GIVEN, FOLDERS, JOURNAL):
        (partial / name).unlink(missing_ok=True)
    old = target.parent / f".{target.name}.old"
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    partial.rename(target)
    shutil.rmtree(old, ignore_errors=True)


class _Build:
    """A build in the hidden folder `partial`, which may hold the beginning of a former one."""

    def __init__(self, partial: Path, folder: Path, names: list[str]) -> None:
        self.partial, self.folder, self.names = partial, folder, names
        self.shards: list[Shard] = []
        self.words: dict[str, int] = {}  # of labels, numbered as they come
        self.folders: dict[str, int] = {}
        self.has_numbers = self.says_none = False
        self._pending: list[str] = []
        self._take_up()

    def _take_up(self) -> None:
        """Go on from the journal, as far as it tells of the same shards and the pieces are as long as it says."""
        (self.partial / FACTS_FILE).unlink(missing_ok=True)
        journal = self.partial / JOURNAL
        room = min(self._size(name) // width for name, width in PIECES.items())
        rows = kept = 0
        for line in journal.read_bytes().splitlines(keepends=True) if journal.is_file() else []:
            try:
                entry = json.loads(line)
                shard, says_none = Shard(**entry["shard"]), entry["says_none"]
            except (ValueError, LookupError, TypeError):
                break
            if (
                entry.get("format") != FORMAT
                or rows + shard.images > room
                or not self._is_next(shard)
                or not line.endswith(b"\n")
            ):
                break
            self._note(shard, entry["words"], entry["folders"], entry["has_numbers"])
            self.says_none |= says_none
            rows, kept = rows + shard.images, kept + len(line)
        for name, length in {JOURNAL: kept, **{name: rows * width for name, width in PIECES.items()}}.items():
            (self.partial / name).touch()
            os.truncate(self.partial / name, length)

    def _is_next(self, shard: Shard) -> bool:
        expected = self.names[len(self.shards) : len(self.shards) + 1]
        return expected == [shard.name] and _is_untouched(self.folder, shard)

    def _size(self, name: str) -> int:
        path = self.partial / name
        return path.stat().st_size if path.is_file() else 0

    def _note(self, shard: Shard, words: list[str], folders: list[str], has_numbers: bool) -> None:
        self.shards.append(shard)
        for known, new in ((self.words, words), (self.folders, folders)):
            for word in new:
                known.setdefault(word, len(known))
        self.has_numbers |= has_numbers

    def run(self, progress: Progress) -> None:
        last = time.monotonic()
        with contextlib.ExitStack() as stack:
            files = {name: stack.enter_context((self.partial / name).open("ab")) for name in (*PIECES, JOURNAL)}
            for number in range(len(self.shards), len(self.names)):
                progress(number, len(self.names))
                self._add(self.names[number], files)
                if time.monotonic() - last > COMMIT_SECONDS:
                    self._commit(files)
                    last = time.monotonic()
            self._commit(files)
        progress(len(self.names), len(self.names))

    def _add(self, name: str, files: Mapping[str, IO[bytes]]) -> None:
        """Scan one shard."""
        path = self.folder / name
        found = path.stat()
        digest, rows, given, folders = hashlib.sha256(), [], [], []
        names: list[str] = []
        known = (len(self.words), len(self.folders))
        left_out = LeftOut()
        for image, label in samples(path, left_out=left_out):
            digest.update(f"{image.name}\0{image.size}\n".encode("utf-8", "surrogateescape"))
            rows.append((image.offset, image.size, len(self.shards)))
            folders.append(self.folders.setdefault(folder_of(image.name), len(self.folders)))
            self.has_numbers |= isinstance(label, int) and label != NO_LABEL
            self.says_none |= label == NO_LABEL
            given.append(self.words.setdefault(label, len(self.words)) if isinstance(label, str) else label)
            names.append(image.name)
        if self.words and self.has_numbers:
            word = next(iter(self.words))
            raise BadData(f"shard {shown(name)}: labels are numbers here and words ({word}) there. Make them one kind")
        _require_all_or_none(name, names, given)
        is_labelled = any(label is not None and label != NO_LABEL for label in given)
        shard = Shard(
            name, found.st_size, found.st_mtime_ns, len(rows), digest.hexdigest(), is_labelled, left_out.facts()
        )
        files[ROWS_FILE].write(np.asarray(rows, dtype=ROW).tobytes())
        files[GIVEN].write(np.asarray([-1 if label is None else label for label in given], dtype="<i4").tobytes())
        files[FOLDERS].write(np.asarray(folders, dtype="<i4").tobytes())
        new = {"words": [*self.words][known[0] :], "folders": [*self.folders][known[1] :]}
        line = {
            "format": FORMAT,
            "shard": vars(shard),
            **new,
            "has_numbers": self.has_numbers,
            "says_none": self.says_none,
        }
        self._pending.append(json.dumps(line) + "\n")
        self.shards.append(shard)

    def _commit(self, files: Mapping[str, IO[bytes]]) -> None:
        """Have the rows on disk, then say so."""
        for name in PIECES:
            files[name].flush()
            os.fsync(files[name].fileno())
        files[JOURNAL].write("".join(self._pending).encode())
        files[JOURNAL].flush()
        os.fsync(files[JOURNAL].fileno())
        self._pending = []

    def finish(self, folder: str) -> None:
        """Number the labels, then write the facts, which make it an index."""
        piece, names, shards = self._labeling()
        known = self.words if piece == GIVEN else self.folders
        rank = None
        if names is not None:
            place = {name: label for label, name in enumerate(names)}
            of_folder = classes_of(self.folders) if piece == FOLDERS else {}
            rank = np.asarray([*(place[as_text(of_folder.get(name, name))] for name in known), -1], dtype="<i4")
        with (self.partial / piece).open("rb") as former, (self.partial / LABELS_FILE).open("wb") as labels:
            while chunk := former.read(CHUNK * LABEL_BYTES):
                numbers = np.frombuffer(chunk, dtype="<i4")
                labels.write((numbers if rank is None else rank[numbers]).tobytes())
            labels.flush()
            os.fsync(labels.fileno())
        labels_from = {GIVEN: "the samples' .cls and .json", FOLDERS: "folders"}[piece]
        text = json.dumps(index_facts(folder, shards, names, labels_from), ensure_ascii=True)
        write_whole(self.partial / FACTS_FILE, lambda partial: partial.write_text(text + "\n", encoding="utf-8"))

    def _labeling(self) -> tuple[str, list[str] | None, list[Shard]]:
        """Which piece holds the labels, the names of the classes, and the shards with word of their labels.

        Labels that samples name count where any sample has one; else folders are classes, as in a .tar of class
        folders: two at least, and no image outside of them.
        """
        if self.words or self.has_numbers or self.says_none:
            return GIVEN, sorted(map(as_text, self.words)) or None, self.shards
        classes = sorted({as_text(name) for name in classes_of(self.folders).values()}, key=natural_order)
        has_folders = len(classes) > 1 and "" not in classes
        shards = [dataclasses.replace(shard, is_labelled=has_folders) for shard in self.shards]
        return FOLDERS, classes if has_folders else None, shards


def _require_all_or_none(shard: str, names: Sequence[str], given: Sequence[int | None]) -> None:
    """Refuse a shard of which some samples have a label and others do not say whether they have one.

    Raises:
        BadData: names the first of them.
    """
    without = [name for name, label in zip(names, given, strict=True) if label is None]
    if without and len(without) < len(given):
        raise BadData(
            f"shard {shown(shard)}: {len(without)} of its {len(given)} images lack a label, first {shown(without[0])}. "
            "Add a .cls (-1 where there is no label), or leave the image out"
        )
