"""How the images of a source are stored: modes, bit depths, orientation, and which are converted or left out."""

from __future__ import annotations

import contextlib
import functools
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from disco_zoo.data.passing_errors import read_patiently
from disco_zoo.data.pixels.bit_depth import FULL, ValueRanges, deep_pixels, is_stated, kind_of, span, white_of
from disco_zoo.data.pixels.color_profile import changes_colors
from disco_zoo.data.pixels.orientation import orientation_of
from disco_zoo.data.source_image import apply_pixel_limit
from disco_zoo.errors import BadData, CannotRead

ALL_OF = 1024  # sources up to this size are looked at whole, larger ones in evenly spaced blocks
BLOCKS, BLOCK = 4, 128
DEEP_ALL_OF, DEEP_BLOCKS = 4096, 32  # where images of more than 8 bits are among them
MOST_BYTES = 2**28  # read for headers from sources that give whole files alone
_TRANSPARENT = ("RGBA", "LA", "PA", "La", "RGBa")
_PAGED = ("GIF", "TIFF", "WEBP", "PNG", "AVIF", "MPO")
Opener = Callable[[int], bytes | Path | Image.Image]


@dataclass(frozen=True)
class Survey:
    """What was seen of the images of a source.

    Attributes:
        total, looked: images there are, and images looked at.
        modes: images by Pillow's mode, or by the kind of `bit_depth`.
        spans: lowest and highest value of each kind of deep images.
        turned, profiled, transparent, paged, unreadable: images of which EXIF turns the pixels, the colours are
            converted by their profile, white is laid under, the first of several pages or frames is used; and others.
        side: shortest and longest side in pixels.
    """

    total: int = 0
    looked: int = 0
    modes: Counter[str] = field(default_factory=Counter)
    spans: dict[str, tuple[float, float]] = field(default_factory=dict)
    turned: int = 0
    profiled: int = 0
    transparent: int = 0
    paged: int = 0
    unreadable: int = 0
    side: tuple[int, int] = (0, 0)

    def merged(self, other: Survey) -> dict[str, tuple[float, float]]:
        """The spans of both."""
        spans = dict(self.spans)
        for kind, (low, high) in other.spans.items():
            own_low, own_high = spans.get(kind, (low, high))
            spans[kind] = min(low, own_low), max(high, own_high)
        return spans

    def ranges(self, name: str) -> ValueRanges:
        """What is white in deep images.

        Raises:
            BadData: it cannot be told.
        """
        try:
            white = {kind: white_of(kind, *found) for kind, found in self.spans.items()}
        except ValueError as error:
            raise BadData(f"{name}: images of {error}.") from error
        return ValueRanges(white, alone=False, looked=self.looked)

    def converted(self) -> dict[str, int]:
        """What is changed on the way to RGB, and how many of the images looked at."""
        counts = {
            "turned by EXIF": self.turned,
            "converted by a colour profile": self.profiled,
            "laid over white where transparent": self.transparent,
            "first page or frame used": self.paged,
            "unreadable": self.unreadable,
        }
        return {words: count for words, count in counts.items() if count}


class _Counts:
    """A survey in the making."""

    def __init__(self) -> None:
        self.looked = self.turned = self.profiled = self.transparent = self.paged = self.unreadable = 0
        self.modes: Counter[str] = Counter()
        self.spans: dict[str, tuple[float, float]] = {}
        self.sides: list[int] = []

    def add(self, image: Image.Image) -> str | None:
        """Count an opened image; return its kind where it is deep."""
        kind = kind_of(image)
        self.looked += 1
        self.modes[kind or image.mode] += 1
        self.turned += orientation_of(image) != 1
        self.profiled += changes_colors(image)
        self.transparent += image.mode in _TRANSPARENT or "transparency" in image.info
        self.paged += image.format in _PAGED and getattr(image, "n_frames", 1) > 1
        self.sides += image.size
        return kind

    def add_values(self, found: bytes | Path | Image.Image) -> None:
        """Widen the span of a deep image's kind by its values."""
        try:
            with _opened(found) as image:
                kind = kind_of(image)
                if kind is None:
                    return
                stated = is_stated(image, kind)
                low, high = span(deep_pixels(image, found if isinstance(found, bytes) else None))
        except Exception:  # as in `_headers`
            self.unreadable += 1
            return
        low, high = (0.0, float(FULL[-1])) if stated else (low, high)
        old_low, old_high = self.spans.get(kind, (low, high))
        self.spans[kind] = min(low, old_low), max(high, old_high)


def survey(total: int, encoded: Opener, header: Opener | None = None) -> Survey:
    """Look at images.

    Args:
        total: how many there are.
        encoded: gives an image's file, or the image.
        header: the same where less is read than the whole file; None for `encoded`.
    """
    order = spread(total, ALL_OF, BLOCKS)
    counts, deep = _headers(order, header or encoded, MOST_BYTES)
    if deep and len(order) < total:
        counts, deep = _headers(spread(total, DEEP_ALL_OF, DEEP_BLOCKS), header or encoded, None)
    for index in deep:
        try:
            found = read_patiently(functools.partial(encoded, index), lambda: "an image")
        except CannotRead:
            raise
        except Exception:  # as in `_headers`
            counts.unreadable += 1
        else:
            counts.add_values(found)
    side = (min(counts.sides), max(counts.sides)) if counts.sides else (0, 0)
    return Survey(
        total,
        counts.looked,
        counts.modes,
        counts.spans,
        counts.turned,
        counts.profiled,
        counts.transparent,
        counts.paged,
        counts.unreadable,
        side,
    )


def spread(total: int, all_of: int, blocks: int) -> Sequence[int]:
    """All numbers of few images, evenly spaced blocks of many: neighbours are cheap to read together."""
    if total <= all_of:
        return range(total)
    firsts = (round(block * (total - BLOCK) / (blocks - 1)) for block in range(blocks))
    return sorted({first + place for first in firsts for place in range(BLOCK)})


def _headers(order: Iterable[int], opener: Opener, most_bytes: int | None) -> tuple[_Counts, list[int]]:
    """The counts of images by their headers, and those that are deep."""
    counts, deep, read = _Counts(), [], 0
    for index in order:
        try:
            found = read_patiently(functools.partial(opener, index), lambda: "an image")
            read += len(found) if isinstance(found, bytes) else 0
            with _opened(found) as image:
                if counts.add(image) is not None:
                    deep.append(index)
        except CannotRead:
            raise
        except Exception:  # decoders of damaged bytes raise nearly anything; it is told when the image is read
            counts.unreadable += 1
        if most_bytes is not None and read > most_bytes:
            break
    return counts, deep


@contextlib.contextmanager
def _opened(found: bytes | Path | Image.Image) -> Iterator[Image.Image]:
    if isinstance(found, Image.Image):
        yield found
        return
    apply_pixel_limit()
    with Image.open(found if isinstance(found, Path) else io.BytesIO(found)) as image:
        yield image
