"""Some images of a source, or two sources, as a source; and the choice of images to measure on where none are given."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from disco_zoo.core.console import say_once
from disco_zoo.core.files import user_path
from disco_zoo.core.random_streams import stream_generator
from disco_zoo.data.dataset import ImageSource, require_index, split_words
from disco_zoo.data.open_source import TIMM_PREFIXES, open_source
from disco_zoo.data.pixels.bit_depth import ValueRanges
from disco_zoo.data.survey import Survey
from disco_zoo.errors import BadData


class SubsetSource(ImageSource):
    """The images `indices` of `source`, in that order, with labels and class names as they are there."""

    def __init__(self, source: ImageSource, indices: Sequence[int] | NDArray[np.int64]) -> None:
        self.source, self.indices = source, np.asarray(indices, dtype=np.int64)
        labels = None if source.labels is None else source.labels.take(self.indices)
        super().__init__(source.name, source.split, labels, source.class_names)
        self.origin, self.class_folders = source.origin, source.class_folders
        self.names_are_declared = source.names_are_declared

    def __len__(self) -> int:
        return len(self.indices)

    def encoded(self, index: int) -> bytes | Image.Image:
        return self.source.encoded(int(self.indices[index]))

    def places(self) -> tuple[Path, ...]:
        return self.source.places()

    def path(self, index: int) -> str:
        return self.source.path(int(self.indices[index]))

    @property
    def survey(self) -> Survey:
        """That of the whole source."""
        return self.source.survey

    def ranges_of(self, index: int) -> ValueRanges:
        return self.source.ranges_of(int(self.indices[index]))

    def share_depth(self, other: ImageSource) -> None:
        self.source.share_depth(other)

    def take_ranges(self, ranges: ValueRanges) -> None:
        self.source.take_ranges(ranges)

    def _hash_content(self, digest: hashlib._Hash) -> None:
        digest.update(self.source.fingerprint().encode())
        digest.update(np.ascontiguousarray(self.indices, dtype="<i8").data)


class RelabeledSource(SubsetSource):
    """All images of `source` with other labels: int64 (N,), -1 for none, and their names."""

    def __init__(self, source: ImageSource, labels: NDArray[np.int64], class_names: list[str] | None) -> None:
        super().__init__(source, range(len(source)))
        self.set_labels(labels, class_names)


def labeled_part(source: ImageSource) -> ImageSource:
    """The images that have a label, where others have none; else the source as it is."""
    if not source.num_unlabeled or source.labels is None:
        return source
    say_once(
        f"{source.name}: {source.num_unlabeled:,} of the {len(source):,} {split_words(source.split)} have no label; "
        "what needs labels uses the others"
    )
    return SubsetSource(source, np.flatnonzero(np.asarray(source.labels) >= 0))


def random_subset(source: ImageSource, max_images: int | None) -> ImageSource:
    """At most `max_images` of a source with an index: one random choice, the same for every seed; None takes all."""
    if max_images is None or max_images >= len(source):
        return source
    order = torch.randperm(len(source), generator=stream_generator("max_images", 0))
    return SubsetSource(source, order[:max_images].sort().values.numpy())


SHARE = 0.2


def held_out_images(classes: Sequence[set[int]]) -> set[int]:
    """Numbers of the images to hold out: the same ones for every seed of a training.

    Args:
        classes: of each image, those that must be left to learn.

    Returns:
        A fifth of the images, fewer where classes are rare; empty where none can be spared.
    """
    order = torch.randperm(len(classes), generator=stream_generator("task_held_out", 0)).tolist()
    wanted = max(1, round(SHARE * len(classes)))
    chosen: set[int] = set()
    left = Counter(label for labels in classes for label in labels)
    for number in order:
        if len(chosen) < wanted and all(left[label] > 1 for label in classes[number]):
            chosen.add(number)
            left.subtract(classes[number])
    return chosen


def held_out_note(test: int, total: int) -> str:
    """How many images are held out, as one line."""
    return f"no test split: {test} of {total} images, the same for every seed, are held out to measure on"


class JoinedSource(ImageSource):
    """The images of `first`, then `repeats` times those of `extra`; without labels, whose classes may differ.

    A repeated image has a number for each time it is seen in an epoch, and so other views each time.
    """

    def __init__(self, first: ImageSource, extra: ImageSource, repeats: int) -> None:
        self.first, self.extra, self.repeats = first, extra, repeats
        super().__init__(first.name, first.split)

    def __len__(self) -> int:
        return len(self.first) + self.repeats * len(self.extra)

    def encoded(self, index: int) -> bytes | Image.Image:
        source, own = self._place(index)
        return source.encoded(own)

    def ranges_of(self, index: int) -> ValueRanges:
        source, own = self._place(index)
        return source.ranges_of(own)

    def path(self, index: int) -> str:
        source, own = self._place(index)
        return source.path(own)

    def first_copies(self) -> NDArray[np.int64]:
        extra = np.tile(np.arange(len(self.first), len(self.first) + len(self.extra)), self.repeats)
        return np.concatenate([np.arange(len(self.first)), extra])

    def _place(self, index: int) -> tuple[ImageSource, int]:
        """The source of an image, and its number there."""
        beyond = index - len(self.first)
        return (self.first, index) if beyond < 0 else (self.extra, beyond % len(self.extra))

    def _hash_content(self, digest: hashlib._Hash) -> None:
        digest.update(f"{self.first.fingerprint()} {self.extra.fingerprint()} {self.repeats}".encode())


def with_extra(first: ImageSource, extra_source: str | None, repeats: int) -> ImageSource:
    """`first` and the extra images that `data.extra_source` names; `first` itself where it names none.

    Raises:
        BadData: the extra images cannot be had, or one of the two is a stream.
    """
    if extra_source is None:
        return first
    require_index(first, "data.extra_source")
    extra = open_source(_beside(extra_source, first.name), "train")
    require_index(extra, "data.extra_source")
    return JoinedSource(first, extra, repeats)


def _beside(extra: str, data: str) -> str:
    """A file or folder that is not here is looked for beside the main data; what has a prefix of timm's stays."""
    here, beside = user_path(extra), user_path(data).parent / extra
    if here.exists() or (not beside.exists() and extra.partition("/")[0].lower() in TIMM_PREFIXES):
        return extra
    if beside.exists():
        return str(beside)
    raise BadData(
        f"there are no extra images at {extra}, neither here nor beside {data}. "
        "Type: --set data.extra_source=PATH, or for none: --set data.extra_source=null"
    )
