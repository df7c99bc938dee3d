"""`data pack`: writes shards one by one, each atomically, with a record from which a stopped job resumes."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import __version__ as pillow_version

from disco_zoo.core.claimed_dir import ClaimedFolder
from disco_zoo.core.console import StepProgress
from disco_zoo.core.files import user_path, write_out
from disco_zoo.core.interrupts import InterruptFlag
from disco_zoo.data.dataset import ImageSource
from disco_zoo.data.image_sample import sample_sha256
from disco_zoo.data.pack.images import PackedImage, PackSettings, packed
from disco_zoo.data.stream_source import StreamSource
from disco_zoo.data.unreadable import UnreadableTally, unreadable_limit
from disco_zoo.errors import BadData, BadRunFolder, Interrupted, require

RECORD = "pack.json"
ROW_GROUP_IMAGES = 100  # few enough to be read for a single image of a random order
BYTES_PER_MB = 10**6


@dataclass(frozen=True)
class Packed:
    """What a finished folder holds: images of each split, shards, bytes, and what could not be read."""

    images: dict[str, int]
    shards: int
    size_bytes: int
    unreadable: list[str]
    seconds: float


class PackFolder(ClaimedFolder):
    """The folder of shards, called `.shard` until all are there: no reader takes a part for the whole."""

    def claim(self, key: Mapping[str, Any], resume: bool) -> dict[str, Any]:
        """Lock the folder and return its record.

        Raises:
            BadRunFolder: packed from something else, begun without `resume`, or in use.
        """
        begun = (self.path / RECORD).exists()
        if not begun and self.path.is_dir() and not all(map(_is_left_over, self.path.iterdir())):
            raise BadRunFolder(f"{self.path} holds other files. Choose another --out")
        self._acquire()
        record: dict[str, Any] = {"key": dict(key), "shards": [], "unreadable": {}, "done": False}
        record = self.read_json(RECORD) or record
        fault = ""
        # Folders of before do not tell.
        untold = {"image_bytes": key["image_bytes"], "white": {split: {} for split in key["white"]}}
        known = {**untold, **record["key"]}
        if known != key:
            changed = ", ".join(name for name, value in key.items() if known.get(name) != value)
            fault = f"{self.path} was packed from other images or with other options ({changed}). Choose another --out"
        elif begun and not resume and not record["done"]:
            fault = f"{self.path} is begun. Add --resume to go on"
        elif resume and not begun:
            fault = f"{self.path} has nothing to resume. Repeat the command without --resume"
        if fault:
            self.close()
            raise BadRunFolder(fault)
        return record

    def shard(self, split: str, number: int) -> Path:
        return self.path / f"{split}-{number:05d}.shard"

    def finish(self, record: dict[str, Any]) -> None:
        """Give all shards the names by which readers find them. A second call does what a killed one left."""
        for split in {shard["split"]: None for shard in record["shards"]}:
            count = sum(shard["split"] == split for shard in record["shards"])
            for number in range(count):
                if self.shard(split, number).exists():
                    self.shard(split, number).rename(self.path / f"{split}-{number:05d}-of-{count:05d}.parquet")
        self.write_json(RECORD, {**record, "done": True})


def _is_left_over(entry: Path) -> bool:
    """Of a job that was killed before its first record: it is written anew."""
    return entry.name.startswith(".") or re.fullmatch(r"(train|test)-\d{5}\.shard", entry.name) is not None


@dataclass(frozen=True)
class PackJob:
    """Pack sources, one a split, into a folder.

    Args:
        shard_mb: a shard is closed at this size.
        limit: so many unreadable images are left out and listed; None for 1 in 100, at least 10.
    """

    sources: Sequence[ImageSource]
    out: Path
    settings: PackSettings
    shard_mb: int = 256
    workers: int = 0
    limit: int | None = None

    def run(self, *, resume: bool = False) -> Packed:
        """Make the folder, or the rest of it; the bytes are those of an undisturbed job.

        Raises:
            BadData: too many unreadable images.
            BadRunFolder: the folder is another job's.
            CannotWrite: no room or no permission; what is whole is kept.
            Interrupted: by Ctrl-C; whole shards are kept.
        """
        begun = time.monotonic()
        self._require_outside()
        folder = PackFolder(self.out)
        record = folder.claim(self._key(), resume)
        try:
            if not record["done"]:
                for source in self.sources:
                    self._pack_split(folder, record, source)
                folder.finish(record)
        finally:
            folder.close()
        counts = {s.split: sum(p["images"] for p in record["shards"] if p["split"] == s.split) for s in self.sources}
        size_bytes = sum(file.stat().st_size for file in self.out.glob("*.parquet"))
        lost = [message for messages in record["unreadable"].values() for message in messages.values()]
        return Packed(counts, len(record["shards"]), size_bytes, lost, time.monotonic() - begun)

    def _require_outside(self) -> None:
        """A folder of photos with shards in it would from then on be taken for these shards."""
        for source in self.sources:
            folder = user_path(source.name)
            if folder.is_dir() and self.out.resolve().is_relative_to(folder.resolve()):
                raise BadRunFolder(f"{self.out} lies in {folder}, which it is made of. Choose an --out beside it")

    def _key(self) -> dict[str, Any]:
        sources = {source.split: source.fingerprint() for source in self.sources}
        return {
            "images": sources,
            "image_bytes": {source.split: sample_sha256(source) for source in self.sources},
            "white": {source.split: source.white() if source.survey.spans else {} for source in self.sources},
            "size": self.settings.size,
            "quality": self.settings.quality,
            "shard_mb": self.shard_mb,
            "pillow": pillow_version,
        }

    def _pack_split(self, folder: PackFolder, record: dict[str, Any], source: ImageSource) -> None:
        shards = _SplitShards(folder, record, source)
        if shards.is_finished:
            return
        tally = UnreadableTally(unreadable_limit(len(source)) if self.limit is None else self.limit)
        for index, message in shards.unreadable.items():
            tally.add(int(index), message)
        first, begun = shards.first, time.monotonic()
        with InterruptFlag() as flag, StepProgress(f"packing {source.split} images", len(source), first) as progress:
            for image in packed(source, first, self.settings, self.workers):
                if flag.raised:
                    raise Interrupted(f"{self.out} is begun. Repeat the command with --resume to go on")
                shards.add(image)
                if image.error:
                    tally.add(image.index, image.error)
                    tally.check()
                if shards.open_bytes >= self.shard_mb * BYTES_PER_MB:
                    shards.close_one()
                done = image.index + 1
                progress.advance(done, f"{(done - first) / (time.monotonic() - begun):.0f} images/s")
        if not shards.num_images:
            raise BadData(f"none of the {len(source)} {source.split} images of {source.name} can be read. Give others")
        shards.close_one(last=True)


class _SplitShards:
    """The shards of one split, and the one that is being filled.

    Attributes:
        first: the image after the last one of a whole shard.
        open_bytes: size of the images that wait for the next shard.
    """

    def __init__(self, folder: PackFolder, record: dict[str, Any], source: ImageSource) -> None:
        self.folder, self.record, self.source = folder, record, source
        whole = self._whole()
        self.first = whole[-1]["next"] if whole else 0
        self.is_finished = bool(whole) and whole[-1]["last"]
        self.unreadable: dict[str, str] = record["unreadable"].setdefault(source.split, {})
        self._begin(self.first)

    def _whole(self) -> list[dict[str, Any]]:
        return [shard for shard in self.record["shards"] if shard["split"] == self.source.split]

    def _begin(self, first: int) -> None:
        self._rows: list[PackedImage] = []
        self._lost: dict[str, str] = {}
        self._next, self.open_bytes = first, 0

    @property
    def num_images(self) -> int:
        return sum(shard["images"] for shard in self._whole()) + len(self._rows)

    def add(self, image: PackedImage) -> None:
        """Take the next image of the source."""
        self._next = image.index + 1
        if image.error:
            self._lost[str(image.index)] = image.error
            return
        self._rows.append(image)
        self.open_bytes += len(image.encoded)

    def close_one(self, last: bool = False) -> None:
        """Write what waits, then the record: a shard that the record does not name is made again."""
        path = self.folder.shard(self.source.split, len(self._whole()))
        write_out(path, lambda partial: _write_shard(partial, self.source, self._rows))
        shard = {"split": self.source.split, "images": len(self._rows), "next": self._next, "last": last}
        self.record["shards"].append(shard)
        self.unreadable |= self._lost
        text = json.dumps(self.record, indent=2)
        write_out(self.folder.path / RECORD, lambda partial: partial.write_text(text, encoding="utf-8"))
        self._begin(self._next)


def _write_shard(path: Path, source: ImageSource, rows: Sequence[PackedImage]) -> None:
    """A Hugging Face table: image {bytes, path}, and label where one is known."""
    arrow, parquet = require("pyarrow", "train"), require("pyarrow.parquet", "train")
    image_type = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    # Names that are no valid text cannot be stored as they are.
    paths = [row.path.encode("utf-8", "backslashreplace").decode() for row in rows]
    cells = [{"bytes": row.encoded, "path": path} for row, path in zip(rows, paths, strict=True)]
    columns = {"image": arrow.array(cells, image_type)}
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    if source.labels is not None or not source.has_index:  # a stream tells them one by one
        columns["label"] = arrow.array([row.label for row in rows], arrow.int64())
        shards = source.shards if isinstance(source, StreamSource) else None
        names = shards.class_names if shards is not None else source.class_names
        named = {"names": names, "_type": "ClassLabel"}
        features["label"] = named if names else {"dtype": "int64", "_type": "Value"}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = arrow.table(columns).replace_schema_metadata(metadata)
    parquet.write_table(table, path, row_group_size=ROW_GROUP_IMAGES, compression="none", use_dictionary=False)
