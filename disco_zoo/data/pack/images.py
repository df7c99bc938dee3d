"""Converts images, one after another in the order of the source, to what a shard stores."""

from __future__ import annotations

import hashlib
import io
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from PIL import Image
from torch.utils.data import Dataset

from disco_zoo.core.console import say_once
from disco_zoo.core.loader import BoundedLoader, unchanged
from disco_zoo.data.dataset import ImageSource
from disco_zoo.data.image_list import name_of
from disco_zoo.data.pixels.bit_depth import ValueRanges
from disco_zoo.data.stream_source import StreamedImage, StreamSource, TarShards
from disco_zoo.errors import BadData, UnreadableImage

IMAGES_A_TURN = 16  # that a worker hands over at once


@dataclass(frozen=True)
class PackSettings:
    """How images are stored.

    Attributes:
        size: shorter side in pixels; smaller images keep theirs.
        quality: of the JPEGs, 1 to 95.
    """

    size: int = 256
    quality: int = 92


@dataclass(frozen=True)
class PackedImage:
    """A row of a shard, or why there is none (`error`)."""

    index: int
    encoded: bytes
    path: str
    label: int | None
    error: str = ""


def packed(source: ImageSource, first: int, settings: PackSettings, workers: int) -> Iterator[PackedImage]:
    """The images from number `first` on."""
    if isinstance(source, StreamSource):
        if isinstance(source.shards, TarShards):
            folder = source.shards.paths[0].parent
            raise BadData(
                f"{source.name} has shards on disk: index them, then pack their folder. "
                f"Type: disco-zoo data index {folder}"
            )
        yield from _packed_stream(source, first, settings)
        return
    loader = BoundedLoader(
        _Packed(source, settings),
        batch_size=IMAGES_A_TURN,
        sampler=range(first, len(source)),
        workers=workers,
        collate=unchanged,
    )
    for images in loader:
        yield from images


def _packed_stream(source: StreamSource, first: int, settings: PackSettings) -> Iterator[PackedImage]:
    """A stream has no index: what was packed before passes by again.

    The Hub's shards hold files; what other readers cannot decode stops them.
    """
    if source.shards is not None:
        if source.shards.words is not None:
            say_once(
                f"{source.name}: the labels in the column {source.shards.words} are words, which cannot be numbered "
                "while a stream passes: packed without labels. Where it fits on the disk, hfds/ keeps them"
            )
        shards = map(source.shards.images, range(source.shards.num_shards))
        for position, arrived in enumerate(itertools.chain.from_iterable(shards)):
            if position >= first:
                row = _packed_image(_Arrived(source, arrived, position), position, settings)
                yield replace(row, path=source.path(position), label=arrived.label)
        return
    for image, position, label in source:
        if position >= first:
            yield PackedImage(position, encoded_for_shard(image, image, settings), source.path(position), label)


class _Arrived(ImageSource):
    """An image of a stream, at its position."""

    def __init__(self, stream: StreamSource, image: StreamedImage, position: int) -> None:
        super().__init__(stream.name, stream.split)
        self._stream, self._image, self._position = stream, image, position

    def __len__(self) -> int:
        return self._position + 1

    def encoded(self, index: int) -> bytes:
        return self._image.read()

    def path(self, index: int) -> str:
        return self._image.name

    def ranges_of(self, index: int) -> ValueRanges:
        return self._stream.ranges_of(index)

    def _hash_content(self, digest: hashlib._Hash) -> None:
        raise NotImplementedError("one image is no data set")


class _Packed(Dataset[PackedImage]):
    def __init__(self, source: ImageSource, settings: PackSettings) -> None:
        self.source, self.settings = source, settings

    def __getitem__(self, index: int) -> PackedImage:
        return _packed_image(self.source, index, self.settings)


def _packed_image(source: ImageSource, index: int, settings: PackSettings) -> PackedImage:
    label = None if source.labels is None else source.labels[index]
    try:
        image = source.opened(index)
        rgb = image.rgb()
        # What is white in deep images is the source's to say; the shard holds what it made of them.
        encoded = encoded_for_shard(rgb if image.is_deep else image.encoded, rgb, settings)
        return PackedImage(index, encoded, name_of(source, index), label)
    except UnreadableImage as error:
        return PackedImage(index, b"", "", label, str(error))


def encoded_for_shard(original: bytes | Image.Image, rgb: Image.Image, settings: PackSettings) -> bytes:
    """The file to store: a smaller JPEG, or the original where that is small enough (as PNG if it is no file)."""
    shorter = min(rgb.size)
    if shorter <= settings.size and not isinstance(original, Image.Image):
        return original
    file = io.BytesIO()
    if shorter <= settings.size:
        rgb.save(file, "PNG")
        return file.getvalue()
    width, height = (max(settings.size, round(side * settings.size / shorter)) for side in rgb.size)
    rgb.resize((width, height), Image.Resampling.BICUBIC).save(file, "JPEG", quality=settings.quality)
    return file.getvalue()
