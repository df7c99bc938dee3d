"""Some images of a source, as a source."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from disco_zoo.core.random_streams import stream_generator
from disco_zoo.data.dataset import ImageSource


class SubsetSource(ImageSource):
    """The images `indices` of `source`, in that order, with labels and class names as they are there."""

    def __init__(self, source: ImageSource, indices: Sequence[int] | NDArray[np.int64]) -> None:
        self.source, self.indices = source, np.asarray(indices, dtype=np.int64)
        labels = None if source.labels is None else source.labels.take(self.indices)
        super().__init__(source.name, source.split, labels, source.class_names)

    def __len__(self) -> int:
        return len(self.indices)

    def encoded(self, index: int) -> bytes | Image.Image:
        return self.source.encoded(int(self.indices[index]))

    def path(self, index: int) -> str:
        return self.source.path(int(self.indices[index]))

    def _hash_content(self, digest: hashlib._Hash) -> None:
        digest.update(self.source.fingerprint().encode())
        digest.update(np.ascontiguousarray(self.indices, dtype="<i8").data)


def random_subset(source: ImageSource, max_images: int | None) -> ImageSource:
    """At most `max_images` of a source with an index: one random choice, the same for every seed; None takes all."""
    if max_images is None or max_images >= len(source):
        return source
    order = torch.randperm(len(source), generator=stream_generator("max_images", 0))
    return SubsetSource(source, order[:max_images].sort().values.numpy())
