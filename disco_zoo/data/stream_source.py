"""A stream as a source: images that come in an order of their own and have no number to be fetched by.

Its shards are the parts that training deals out and shuffles. An image's number is its place in the stream as it lies
there, (shard, position in the shard), whatever the order in which it is seen; views are keyed by it as by any number.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from disco_zoo.data.dataset import ImageSource, Origin, require_index
from disco_zoo.data.parquet_columns import IMAGE_COLUMNS, image_columns, label_column, say_other_images
from disco_zoo.data.passing_errors import is_passing
from disco_zoo.data.pixels.bit_depth import ALONE, ValueRanges
from disco_zoo.data.pixels.orientation import orientation_of, upright
from disco_zoo.data.source_image import EMPTY_CELL, to_rgb
from disco_zoo.data.survey import Survey, survey
from disco_zoo.data.webdataset.scan import missing_shard, samples
from disco_zoo.errors import BadData

POSITIONS = 2**32  # in a shard
READ_AT_ONCE = 8
LOOK_SHARDS, LOOK_IMAGES = 4, 64


class StreamedImage(NamedTuple):
    """An image that has come, not yet decoded.

    Attributes:
        number: shard · 2^32 + position in the shard.
        name: by which a user finds it.
        read: returns the file's bytes.
        label: None where it has none, or where labels are not read.
    """

    number: int
    name: str
    read: Callable[[], bytes]
    label: int | None = None


class StreamShards(ABC):
    """A stream's shards; numbered from 0. It must survive pickling: workers read them.

    Attributes:
        ranges: what is white in images of more than 8 bits (`look`).
        class_names: name of each label, where they are declared.
        words: the column of labels that are words, which cannot be numbered while they pass; None without one.
        notes: what was guessed.
    """

    num_shards: int
    ranges: ValueRanges = ALONE
    class_names: list[str] | None = None
    words: str | None = None
    notes: tuple[str, ...] = ()

    def look(self, name: str) -> Survey:
        """Look at the first images of some shards, and remember what is white in deep ones.

        Raises:
            BadData: it cannot be told.
        """
        shards = sorted({round(part * (self.num_shards - 1) / (LOOK_SHARDS - 1)) for part in range(LOOK_SHARDS)})
        found = [image for shard in shards for image in itertools.islice(self.images(shard), LOOK_IMAGES)]
        seen = survey(len(found), lambda index: found[index].read())
        self.ranges = seen.ranges(name)
        return seen

    @abstractmethod
    def images(self, shard: int) -> Iterator[StreamedImage]:
        """The images of a shard in its order; those that are passed by are not decoded."""

    @abstractmethod
    def hash_content(self, digest: hashlib._Hash) -> None:
        """Feed the digest with what tells these shards from others."""


class TarShards(StreamShards):
    """Webdataset shards on disk. Headers are read in order; an image's bytes when it leaves the shuffle buffer."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)
        self.num_shards = len(self.paths)

    def images(self, shard: int) -> Iterator[StreamedImage]:
        path = self.paths[shard]
        for position, (member, _) in enumerate(samples(path, with_labels=False)):
            read = functools.partial(_read_at, path, member.offset, member.size)
            yield StreamedImage(shard * POSITIONS + position, f"{member.name} in {path.name}", read)

    def hash_content(self, digest: hashlib._Hash) -> None:
        for path in self.paths:
            try:
                digest.update(f"{path.name}\0{path.stat().st_size}\n".encode())
            except OSError as error:
                raise missing_shard(path, error) from error


def _read_at(path: Path, offset: int, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(size)
    except OSError as error:
        if is_passing(error):
            raise
        raise missing_shard(path, error) from error


class HubShards(StreamShards):
    """A streamed Hugging Face dataset: its files are the shards, its cells hold encoded images.

    Args:
        name: for messages.
        dataset: a `datasets.IterableDataset`, unshuffled.

    Raises:
        BadData: no column of images.
    """

    def __init__(self, name: str, dataset: Any) -> None:
        from datasets import Image

        columns = dataset.column_names or [*next(iter(dataset), {})]  # some know their columns from the first row only
        schema = dataset.features.arrow_schema if dataset.features else None
        column = next(iter(image_columns(schema)) if schema else (c for c in IMAGE_COLUMNS if c in columns), None)
        if column is None:
            raise BadData(f"{name} has no column of images among: {', '.join(columns) or 'none'}")
        self.notes = say_other_images(schema, column, name) if schema else ()
        self.name, self.column = name, column
        self.label = self._label_column(dataset.features or {})
        wanted = [column, *([self.label] if self.label else [])]
        self.dataset = dataset.select_columns(wanted).cast_column(column, Image(decode=False))
        self.num_shards = getattr(dataset, "num_shards", None) or dataset.n_shards

    def _label_column(self, features: Any) -> str | None:
        """The column of whole numbers that are labels."""
        label = label_column(features.arrow_schema) if features else None
        if label is None:
            return None
        if not str(features[label].dtype).startswith(("int", "uint", "bool")):
            self.words = label
            return None
        self.class_names = getattr(features[label], "names", None)
        return label

    def images(self, shard: int) -> Iterator[StreamedImage]:
        from datasets.distributed import split_dataset_by_node

        part, position = split_dataset_by_node(self.dataset, rank=shard, world_size=self.num_shards), 0
        # `iter` and not the dataset itself, which in a loader's worker would keep to that worker's share of the files.
        for cells in part.iter(batch_size=READ_AT_ONCE):
            labels = cells[self.label] if self.label else [None] * len(cells[self.column])
            for cell, label in zip(cells[self.column], labels, strict=True):
                cell = cell or {}
                name = f"{cell.get('path') or 'row'} ({position} of shard {shard}) of {self.name}"
                number, read = shard * POSITIONS + position, functools.partial(bytes_of_cell, cell)
                yield StreamedImage(number, name, read, None if label is None else int(label))
                position += 1

    def hash_content(self, digest: hashlib._Hash) -> None:
        # The images pass only once, so the name and the files are all there is to hash.
        digest.update(f"{self.name}\0{self.num_shards}".encode())


def bytes_of_cell(cell: dict[str, Any]) -> bytes:
    """An image file of a Hugging Face table: the cell's bytes, or those of the file or address that it names."""
    if cell.get("bytes"):
        return bytes(cell["bytes"])
    if not cell.get("path"):
        raise ValueError(EMPTY_CELL)
    from datasets.utils.file_utils import xopen

    with xopen(cell["path"], "rb") as file:  # on the Hub, or in an archive, as `datasets` reads it
        content: bytes = file.read()
    return content


class StreamSource(ImageSource):
    """A stream opened by timm.

    Attributes:
        shards: its parts, from which training takes images in an order of its own; None where it has none.
        num_images: of a pass; 0 where nobody knows.
    """

    has_index = False

    def __init__(self, name: str, split: str, dataset: Any, shards: StreamShards | None = None) -> None:
        super().__init__(name, split)
        self._dataset, self.shards = dataset, shards
        self.num_images = len(dataset)
        self.origin = Origin(notes=shards.notes) if shards else Origin()

    @functools.cached_property
    def survey(self) -> Survey:
        """How the first images of some shards are stored."""
        return Survey() if self.shards is None else self.shards.look(self.name)

    def ranges_of(self, index: int) -> ValueRanges:
        return ALONE if self.shards is None else self.shards.ranges

    def take_ranges(self, ranges: ValueRanges) -> None:
        if self.shards is not None:
            self.shards.ranges = ranges

    def __len__(self) -> int:
        return self.num_images

    def __iter__(self) -> Iterator[tuple[Image.Image, int, int | None]]:
        """Yield (RGB image, position in this pass, label)."""
        for position, (image, target) in enumerate(self._dataset):
            yield upright(to_rgb(image, self.ranges_of(position)), orientation_of(image)), position, int(target)

    def encoded(self, index: int) -> bytes | Image.Image:
        """Refuse: a stream has no index."""
        require_index(self, "fetching an image by its number")
        raise NotImplementedError

    def path(self, index: int) -> str:
        """Return the stream's name and the position."""
        return f"{self.name}#{index}"

    def _hash_content(self, digest: hashlib._Hash) -> None:
        if self.shards is None:
            digest.update(self.name.encode())
        else:
            self.shards.hash_content(digest)
