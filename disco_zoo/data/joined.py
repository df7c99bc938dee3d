"""Two sources joined for training: labelled images, which also measure, and extra images."""

from __future__ import annotations

import hashlib
from pathlib import Path

from PIL import Image

from disco_zoo.data.dataset import ImageSource, require_index
from disco_zoo.data.open_source import TIMM_PREFIXES, open_source
from disco_zoo.data.pixels.bit_depth import ValueRanges
from disco_zoo.errors import BadData


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
    here, beside = Path(extra).expanduser(), Path(data).expanduser().parent / extra
    if here.exists() or (not beside.exists() and extra.partition("/")[0].lower() in TIMM_PREFIXES):
        return extra
    if beside.exists():
        return str(beside)
    raise BadData(
        f"there are no extra images at {extra}, neither here nor beside {data}. "
        "Type: --set data.extra_source=PATH, or for none: --set data.extra_source=null"
    )
