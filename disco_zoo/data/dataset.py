"""Image sources: where training and evaluation get (image, index, label or None) from.

`open_source.py` is the one entry. What it returns is map-style, holds no decoded image, and can be pickled
or forked into data loader workers. Nobody may assume that rows come shuffled: many files are sorted by label.
"""

from __future__ import annotations

import functools
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from disco_zoo.core.console import say_once
from disco_zoo.data.image_files import as_text
from disco_zoo.data.label_array import Labels
from disco_zoo.data.passing_errors import cannot_read, is_passing, read_patiently
from disco_zoo.data.pixels.bit_depth import ValueRanges
from disco_zoo.data.source_image import SourceImage, too_many_pixels
from disco_zoo.data.survey import Survey, survey
from disco_zoo.errors import BadData, CannotRead, DiscoZooError, UnreadableImage, own_words


@dataclass(frozen=True)
class Origin:
    """Where images and labels of a source were found.

    Attributes:
        split: which part of what the user named this is, such as "folder Training"; "" for all of it.
        labels: what the labels were taken from, such as "folders"; "" for none.
        left_out: files that were seen and are no part of the source, by suffix or as "hidden".
        notes: what else was guessed or passed over.
    """

    split: str = ""
    labels: str = ""
    left_out: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class ImageSource(ABC):
    """A set of images by index, with labels when they are known.

    Attributes:
        name: What the user typed as `--data`.
        split: "train" or "test".
        class_names: Name of each label, or None when unknown.
        names_are_declared: whether class names stand beside labels that are numbers, and are not the labels themselves.
        labels: One integer per image, -1 for an image without, or None when unknown. Training never needs them.
        num_unlabeled: How many images have no label where others have one.
        has_index: False for streams, which cannot fetch an image by its number.
        origin: where images and labels were found.
        class_folders: label of each folder that holds images, where labels come from folders; else empty.
    """

    has_index: bool = True
    names_are_declared: bool = False
    origin: Origin = Origin()

    def __init__(
        self,
        name: str,
        split: str,
        labels: Sequence[int] | NDArray[Any] | None = None,
        class_names: list[str] | None = None,
    ) -> None:
        self.name = name
        self.split = split
        self.class_folders: Mapping[str, int] = {}
        self.set_labels(labels, class_names)

    def set_labels(self, labels: Sequence[int] | NDArray[Any] | None, class_names: list[str] | None) -> None:
        array = None if labels is None else Labels(labels)
        # Benchmarks mark the rows of a secret test set by -1: those are no labels.
        self.labels: Labels | None = array if array is not None and array.largest >= 0 else None
        self.class_names = class_names if self.labels is not None else None
        self.num_unlabeled = 0 if self.labels is None else self.labels.num_negative

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def encoded(self, index: int) -> bytes | Image.Image:
        """Return the file bytes of one image, or the image where the backend only has decoded ones."""

    @abstractmethod
    def path(self, index: int) -> str:
        """Return a name by which a user finds the image."""

    def first_copies(self) -> NDArray[np.int64]:
        """Of each number (N,) the first number of the same image: its own, unless images are repeated."""
        return np.arange(len(self))

    def places(self) -> tuple[Path, ...]:
        """The files and folders that hold these images and no others; empty where nothing can be said of them."""
        return ()

    @abstractmethod
    def _hash_content(self, digest: hashlib._Hash) -> None:
        """Feed the digest with what tells these images from others, but not with where they lie."""

    def opened(self, index: int) -> SourceImage:
        """Open one image without decoding it; `rgb` of it does, and raises what `image` raises.

        Raises:
            UnreadableImage: The bytes are missing or are no image.
            CannotRead: Disk or network failed, and did so again.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is outside 0..{len(self) - 1} of {self.name}")
        try:
            encoded = read_patiently(lambda: self.encoded(index), lambda: as_text(self.path(index)))
            ranges = functools.partial(self.ranges_of, index)
            return SourceImage(encoded, functools.partial(self._unreadable, index), ranges)
        except (BadData, CannotRead):
            raise
        except Exception as error:  # decoders of damaged bytes raise nearly anything
            raise self._unreadable(index, error) from error

    def image(self, index: int) -> Image.Image:
        """Decode one image as RGB, upright (EXIF's orientation is applied).

        Raises:
            UnreadableImage: The bytes are missing or are no whole image.
        """
        return self.opened(index).rgb()

    def header(self, index: int) -> bytes | Path | Image.Image:
        """As `encoded`, or the file's path, where less is read to see its header."""
        return self.encoded(index)

    @functools.cached_property
    def survey(self) -> Survey:
        """How the images are stored: all of few, some of many."""
        seen = survey(len(self), self.encoded, self.header) if self.has_index else Survey()
        self.let_go()
        return seen

    def let_go(self) -> None:  # noqa: B027
        """Close files and forget what was read: a look from outside keeps nothing."""

    def ranges_of(self, index: int) -> ValueRanges:
        """What is white in an image of more than 8 bits: decided once for the whole source.

        Raises:
            BadData: it cannot be told.
        """
        if self._ranges is None:
            self._ranges = self.survey.ranges(self.name)
        return self._ranges

    def take_ranges(self, ranges: ValueRanges) -> None:
        """Take for white what was decided over more images than these."""
        self._ranges = ranges

    _ranges: ValueRanges | None = None

    def white(self) -> dict[str, float]:
        """The value that is taken for white, of each kind of deep images.

        Raises:
            BadData: it cannot be told.
        """
        return dict(self.ranges_of(0).white)

    def share_depth(self, other: ImageSource) -> None:
        """Take the same for white as `other` does, and so does it: test images may be darker than training images.

        Raises:
            BadData: it cannot be told.
        """
        if self.survey.spans or other.survey.spans:
            both = replace(self.survey, spans=self.survey.merged(other.survey)).ranges(self.name)
            self.take_ranges(both)
            other.take_ranges(both)

    def _unreadable(self, index: int, error: Exception) -> DiscoZooError:
        if is_passing(error):  # met while decoding what is read lazily
            return cannot_read(as_text(self.path(index)), error)
        # Pillow's own words for unknown bytes hold a memory address.
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else own_words(error)
        if isinstance(error, Image.DecompressionBombError):
            reason = too_many_pixels(error)
        return UnreadableImage(index, as_text(self.path(index)), reason)

    def __getitem__(self, index: int) -> tuple[Image.Image, int, int | None]:
        return self.image(index), index, self.labels[index] if self.labels is not None else None

    def fingerprint(self) -> str:
        """Return a sha256 (64 hex digits) of number, labels and content, the same wherever the data lies.

        It is of the images as they are when it is first asked for: to read gigabytes once is enough for a run.
        """
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(f"{len(self)} images".encode())
        if self.labels is not None:
            for chunk in self.labels.chunks():
                digest.update(chunk)
        self._hash_content(digest)
        return digest.hexdigest()

    def __repr__(self) -> str:
        labels = "no labels" if self.labels is None else f"{len(set(self.labels) - {-1})} classes"
        return f"{type(self).__name__}({self.name!r}, split={self.split!r}, {len(self)} images, {labels})"


def require_index(source: ImageSource, who: str) -> None:
    """Refuse a stream where images must be fetched by their number.

    Raises:
        BadData: `source` has no index.
    """
    if not source.has_index:
        raise BadData(
            f"{who} needs a source with an index, and {source.name} is a stream. Pack it to parquet, or use a source "
            f"with an index. Type: disco-zoo data pack {source.name} --out FOLDER, or, for .tar shards: "
            "disco-zoo data index FOLDER"
        )


def require_labels(source: ImageSource, who: str) -> Labels:
    """Return the labels of a source.

    Raises:
        BadData: The source has none.
    """
    if source.labels is None:
        raise BadData(
            f"{who} needs labels, and {source.name} has none for its {split_words(source.split)}: photos without class "
            "folders, or all in one, have no labels. Give two or more folders of classes, or a parquet with a label "
            f"column, as {'--eval-data' if source.split == 'test' else '--data'}."
        )
    return source.labels


def require_same_classes(train: ImageSource, test: ImageSource) -> None:
    """Refuse a train and a test set whose labels mean different things.

    Raises:
        BadData: Both have class names, and they differ, or labels are words here and numbers there.
    """
    for words, numbers in ((train, test), (test, train)):
        if words.class_names and not words.names_are_declared and numbers.labels and numbers.class_names is None:
            raise BadData(
                f"the labels of the {split_words(words.split)} of {words.name} are words ({words.class_names[0]} ...), "
                f"those of the {split_words(numbers.split)} of {numbers.name} are numbers. Make them one kind."
            )
    if train.class_names is None or test.class_names is None or train.class_names == test.class_names:
        return
    odd: Iterable[str] = sorted(set(train.class_names) ^ set(test.class_names)) or ["their order"]
    raise BadData(
        f"the classes of {train.name} (train) and {test.name} (test) differ: {', '.join(list(odd)[:5])}. "
        "Give both the same class folders or names."
    )


def first_labelled(sources: Iterable[ImageSource]) -> ImageSource:
    """The first source with labels, where a secret test set comes before it; it is said. Without labels the first."""
    unlabelled: list[ImageSource] = []
    for source in sources:
        if source.labels is None:
            unlabelled.append(source)
            continue
        if unlabelled:
            images = f"{len(source):,} {split_words(source.split)}"
            without = unlabelled[0].origin.split
            say_once(f"{source.name}: the {images} are those of {source.origin.split}; {without} have no labels")
        return source
    return unlabelled[0]


def split_words(split: str) -> str:
    """Return "training images" or "test images"."""
    return "training images" if split == "train" else "test images"
