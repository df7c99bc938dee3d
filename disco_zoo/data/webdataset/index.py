"""The index of a folder of shards: where each image lies, in two files that are mapped and never read whole.

`index.json` says which shards were indexed, with their sizes, by which a changed one is known. `rows.bin` holds
16 bytes an image (offset uint64, size uint32, shard uint32), `labels.bin` an int32; all little-endian.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from disco_zoo.data.file_tree import files_below, size_of
from disco_zoo.data.split_files import SYNONYMS, words
from disco_zoo.errors import BadData, shown

INDEX_FOLDER = "disco_index"
FACTS_FILE, ROWS_FILE, LABELS_FILE = "index.json", "rows.bin", "labels.bin"
FORMAT = "disco-zoo shard index 3"
ROW = np.dtype([("offset", "<u8"), ("size", "<u4"), ("shard", "<u4")])
LABEL_BYTES = 4


@dataclass(frozen=True)
class Shard:
    """A shard as it was indexed.

    Attributes:
        name: path below the folder, with slashes.
        size_bytes: of the file.
        modified_ns: when it was written last; tars are padded, so another content may have the same size.
        images: how many it holds.
        sha256: of the names and sizes of its images.
        is_labelled: whether any image has a label.
        left_out: members that are neither images nor labels, by suffix or as "hidden".
    """

    name: str
    size_bytes: int
    modified_ns: int
    images: int
    sha256: str
    is_labelled: bool
    left_out: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ShardIndex:
    """An index on disk.

    Attributes:
        path: the folder of its files.
        folder: of the shards.
        shards: in the order of their rows; those of one split lie side by side.
        class_names: of the labels, or None where they are plain numbers.
        labels_from: what the labels were taken from; "" where an older index does not say.
    """

    path: Path
    folder: Path
    shards: tuple[Shard, ...]
    class_names: list[str] | None
    labels_from: str = ""

    def part(self, split_word: str) -> range:
        """The numbers of the shards whose names say `split_word`; "" for those that name no split."""
        numbers = [number for number, shard in enumerate(self.shards) if split_word_of(shard.name) == split_word]
        if numbers and numbers[-1] - numbers[0] != len(numbers) - 1:  # an index of before this word was known
            raise self.stale(self.shards[numbers[0]].name, "lies apart from the others of its split")
        return range(numbers[0], numbers[-1] + 1) if numbers else range(0)

    def first_row(self, shard: int) -> int:
        return sum(one.images for one in self.shards[:shard])

    def require_complete(self) -> None:
        """Refuse to leave out shards that came after the index.

        Raises:
            BadData: names the first of them.
        """
        known = {shard.name for shard in self.shards}
        if new := [name for name in shard_names(self.folder) if name not in known]:
            raise self.stale(new[0], "is new")

    def require_unchanged(self, numbers: Sequence[int]) -> None:
        """Refuse shards that are gone, or whose size is not what it was.

        Raises:
            BadData: names the first of them.
        """
        for number in numbers:
            shard = self.shards[number]
            try:
                size = (self.folder / shard.name).stat().st_size
            except OSError:
                raise self.stale(shard.name, "is gone") from None
            if size != shard.size_bytes:
                raise self.stale(shard.name, f"has {size} bytes, not {shard.size_bytes}")

    def stale(self, shard: str, what: str) -> BadData:
        beside = self.path.resolve() == (self.folder / INDEX_FOLDER).resolve()
        out = "" if beside else f" --out {self.path}"
        return BadData(
            f"shard {shown(shard)} {what}: it changed since the folder was indexed. "
            f"Type: disco-zoo data index {self.folder}{out}"
        )


def shard_names(folder: Path) -> list[str]:
    """Paths of the shards below a folder, with slashes; those of one split lie side by side.

    Raises:
        BadData: no folder, none in it, or one that is a link to nothing.
    """
    if not folder.is_dir():
        raise BadData(f"there is no folder {folder}. Give one that holds .tar shards")
    names = [path for path in files_below(folder) if path.endswith(".tar")]
    if not names:
        raise BadData(f"there are no .tar shards in {folder}. Give the folder that holds them")
    if gone := [name for name in names if size_of(folder / name) < 0]:
        raise BadData(
            f"shard {shown(gone[0])} of {folder} is a link that leads nowhere. Put the shard back, or delete it"
        )
    return sorted(names, key=lambda name: (split_word_of(name), name))


def split_word_of(shard_name: str) -> str:
    """The word for a split in a shard's name, most wanted first, or ""."""
    found = words(shard_name)
    return next((word for word in (*SYNONYMS["train"], *SYNONYMS["test"]) if word in found), "")


def find_index(path: Path) -> Path | None:
    """The folder of the index that `path` is or holds, or None; a foreign index.json beside photos is none."""
    if (path / FACTS_FILE).is_file() and (path / ROWS_FILE).is_file():
        return path
    return path / INDEX_FOLDER if (path / INDEX_FOLDER / FACTS_FILE).is_file() else None


def read_index(path: Path) -> ShardIndex:
    """Open the index in the folder `path`; rows are not touched.

    Raises:
        BadData: damaged, or of another version.
    """
    try:
        facts = json.loads((path / FACTS_FILE).read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            folder = (path / facts["folder"]).resolve()
            raise BadData(f"the index {path} was made by another version. Type: disco-zoo data index {folder}")
        shards = tuple(Shard(**shard) for shard in facts["shards"])
        index = ShardIndex(
            path, (path / facts["folder"]).resolve(), shards, facts["class_names"], facts.get("labels_from", "")
        )
        images = sum(shard.images for shard in shards)
        sizes = [(path / name).stat().st_size for name in (ROWS_FILE, LABELS_FILE)]
        if sizes != [images * ROW.itemsize, images * LABEL_BYTES]:
            raise ValueError("its files are cut short")
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise BadData(
            f"the index {path} is damaged ({error}). Remove it and type: disco-zoo data index FOLDER"
        ) from error
    return index


def left_out_of(shards: Iterable[Shard]) -> dict[str, int]:
    """What of all these shards is left out, the most frequent first."""
    counts: Counter[str] = Counter()
    for shard in shards:
        counts.update(shard.left_out)
    return dict(counts.most_common())


def index_facts(
    folder: str, shards: Sequence[Shard], class_names: list[str] | None, labels_from: str = ""
) -> dict[str, Any]:
    """What `index.json` holds.

    Args:
        folder: of the shards, relative to the index's or absolute.
    """
    rows = [vars(shard) for shard in shards]
    return {"format": FORMAT, "folder": folder, "class_names": class_names, "labels_from": labels_from, "shards": rows}
