"""Pixels of more than 8 bits as 8 bits. What is white is read from the values where the file does not say it.

A file of 16 bits may hold 8 bits (a label printer's), 12 (a microscope's) or 16; one of floats 0 to 1 or 0 to 255. The
range is decided once for a whole source, from the values of its images: one image alone may be dark.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FULL = (255, 1023, 4095, 16383, 65535)  # white of 8, 10, 12, 14 and 16 bits
STATED_FORMATS = ("PPM", "JPEG2000")  # their decoders stretch to 16 bits what the file says is white
FEWEST_LEVELS = 16  # with fewer in a whole source nobody can tell what is white
SLOP = 1e-3  # of the range, by which rounding in floats may leave it
_TIFF_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
_TIFF_PLANAR, _PLANE_BY_PLANE, _TIFF_BITS = 284, 2, 258
Pixels = NDArray[np.uint16] | NDArray[np.int64] | NDArray[np.float64]


@dataclass(frozen=True)
class ValueRanges:
    """What is white, of each kind of deep images of a source.

    Attributes:
        white: by kind (see `kind_of`); a kind that is not here is judged by each image alone if `alone`, else refused.
        looked: so many images were looked at.
    """

    white: Mapping[str, float] = field(default_factory=dict)
    alone: bool = True
    looked: int = 0

    def white_of(self, kind: str, pixels: Pixels) -> float:
        """The value that is white in an image.

        Raises:
            ValueError: a value above it, or no range can be told.
        """
        low, high = span(pixels)
        if kind in self.white:
            white = self.white[kind]
            if not -SLOP * white <= low <= high <= white * (1 + SLOP):
                raise ValueError(f"values {low:g} to {high:g} in mode {kind}, where 0 to {white:g} is black to white")
            return white
        if not self.alone:
            raise ValueError(f"mode {kind}, which none of the {self.looked:,} images that were looked at has")
        return white_of(kind, low, high)


ALONE = ValueRanges()


def white_of(kind: str, low: float, high: float) -> float:
    """The white of images whose values go from `low` to `high`.

    Raises:
        ValueError: it cannot be told.
    """
    what = f"mode {kind} with values {low:g} to {high:g}"
    whites = (1.0, *map(float, FULL)) if kind == "F" else tuple(map(float, FULL))
    if kind != "F" and high <= 1:
        whites = (1.0,) if high == 1 else (FULL[-1],)  # a mask of two values; or all is black
    fitting = [white for white in whites if high <= white * (1 + SLOP)]
    if not fitting:
        raise ValueError(f"{what}: nothing says what is white above {FULL[-1]}. Store them as 8 or 16 bits")
    if low < -SLOP * fitting[0]:
        raise ValueError(f"{what}: nothing says what is black below 0. Store them as 8 or 16 bits")
    if fitting[0] > 1 and high < FEWEST_LEVELS and high > 0:
        raise ValueError(f"{what}: too few levels to tell what is white. Store them as 8 or 16 bits")
    return fitting[0]


def kind_of(image: Image.Image) -> str | None:
    """The kind of deep image this is, before it is decoded: "I;16", "I" (32 bits), "F", "RGB;16"; None for 8 bits.

    Raises:
        ValueError: a TIFF of which Pillow does not read whole values.
    """
    tags = getattr(image, "tag_v2", {})
    if tags.get(_TIFF_PLANAR) == _PLANE_BY_PLANE and len(bits := tags.get(_TIFF_BITS, ())) > 1 and max(bits) > 8:
        raise ValueError(f"{max(bits)} bits a colour, stored plane by plane. Store them interleaved, or as PNG")
    if image.mode.startswith("I;16"):
        return "I;16"
    if image.mode in ("I", "F"):
        return image.mode
    return "RGB;16" if _deep_raw_mode(image) else None


def is_stated(image: Image.Image, kind: str) -> bool:
    """Whether 65535 is white by the file's format."""
    return kind != "F" and image.format in STATED_FORMATS


def span(pixels: Pixels) -> tuple[float, float]:
    """Lowest and highest value.

    Raises:
        ValueError: values that are not finite.
    """
    low, high = float(pixels.min()), float(pixels.max())
    if not np.isfinite([low, high]).all():
        raise ValueError("values that are no numbers (NaN or infinite)")
    return low, high


def deep_pixels(image: Image.Image, encoded: bytes | None) -> Pixels:
    """All values (H, W) or (H, W, C) of a deep image, which is decoded; larger where brighter.

    Args:
        encoded: the file, of which Pillow gives the high bytes of colours alone in one decoding.
    """
    if raw := _deep_raw_mode(image):
        image.load()
        high = np.asarray(image).astype(np.uint16)
        return high << 8 | (_low_bytes(encoded, raw) if encoded is not None else high)
    image.load()
    values = np.asarray(image)
    values = values.astype(np.float64) if image.mode == "F" else values.astype(np.int64)
    tags = getattr(image, "tag_v2", None)
    if image.mode.startswith("I;16") and tags is not None and tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO:
        values = FULL[-1] - values
    return values


def to_8_bits(pixels: Pixels, white: float) -> Image.Image:
    """Grey, RGB or RGBA of 8 bits; of full 16 bits the high byte, as ever."""
    if white == FULL[-1] and pixels.dtype.kind != "f":
        return Image.fromarray((pixels.astype(np.int64) >> 8).astype(np.uint8))
    return Image.fromarray(np.clip(np.rint(pixels * (255.0 / white)), 0, 255).astype(np.uint8))


def _deep_raw_mode(image: Image.Image) -> str:
    """The order in which a file of 16 bits a colour is read, "" for other files, or once it is decoded."""
    tiles = getattr(image, "tile", None)
    if image.mode not in ("RGB", "RGBA") or not tiles:
        return ""
    args = tiles[0].args
    raw = args if isinstance(args, str) else args[0] if isinstance(args, tuple) and args else ""
    return raw if isinstance(raw, str) and raw[:-1] in ("RGB;16", "RGBA;16", "RGBX;16") else ""


def _low_bytes(encoded: bytes, raw: str) -> NDArray[np.uint16]:
    """The other half of each value: read as if the bytes lay the other way round."""
    image = Image.open(io.BytesIO(encoded))
    little = raw[-1] == "L" or (raw[-1] == "N" and sys.byteorder == "little")
    other = raw[:-1] + ("B" if little else "L")
    image.tile = [
        tile._replace(args=(other, *tile.args[1:]) if isinstance(tile.args, tuple) else other) for tile in image.tile
    ]
    image.load()
    return np.asarray(image).astype(np.uint16)
