"""A stream as a source: images that come in an order of their own and have no number to be fetched by."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from typing import Any

from PIL import Image

from disco_zoo.data.dataset import ImageSource, require_index
from disco_zoo.data.look.survey import Survey
from disco_zoo.data.orientation import orientation_of, upright
from disco_zoo.data.pixels.bit_depth import ALONE, ValueRanges
from disco_zoo.data.source_image import to_rgb
from disco_zoo.data.streaming.shards import StreamShards


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

    @functools.cached_property
    def survey(self) -> Survey:
        """How the first images of some shards are stored."""
        return Survey() if self.shards is None else self.shards.look(self.name)

    def ranges_of(self, index: int) -> ValueRanges:
        return ALONE if self.shards is None else self.shards.ranges

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
