"""One image of a source, decoded when its pixels are needed; JPEGs may be decoded at reduced size."""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from disco_zoo.data.passing_errors import file_bytes
from disco_zoo.data.pixels.bit_depth import ALONE, FULL, ValueRanges, deep_pixels, is_stated, kind_of, to_8_bits
from disco_zoo.data.pixels.color_profile import in_srgb
from disco_zoo.data.pixels.orientation import Size, orientation_of, seen_size, upright
from disco_zoo.errors import CannotRead

JPEG_FACTORS = (8, 4, 2)
EMPTY_CELL = "the cell is empty"  # of a table: why there is no image
PIXELS_VARIABLE = "DISCO_ZOO_MAX_IMAGE_PIXELS"
# Pillow warns at half of its limit, once, of an image that it then reads.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
Ranges = Callable[[], ValueRanges]


class SourceImage:
    """An image as a source holds it.

    Args:
        encoded: the file's bytes, or the image where the source only has decoded ones.
        explain: makes the error to raise of what a decoder said; None raises that.
        ranges: tells what is white in deep images, asked for such ones alone; None judges by this image alone.

    Attributes:
        encoded: as given.
        size: width and height in pixels when whole and upright.
        is_deep: whether it has more than 8 bits a channel.
        was_reduced: whether it was decoded at reduced size, so far.

    Raises:
        Exception: what `explain` makes of bytes that are no image; later, of those that are no whole image.
    """

    def __init__(
        self,
        encoded: bytes | Image.Image,
        explain: Callable[[Exception], Exception] | None = None,
        ranges: Ranges | None = None,
    ) -> None:
        self._explain, self._ranges = explain, ranges
        self.encoded, self.was_reduced = encoded, False
        self._decoded: dict[int, NDArray[np.uint8]] = {}
        self._header: Image.Image | None = self._open()
        self._orientation = orientation_of(self._header)
        self._stored_size = self._header.size
        self.size = seen_size(self._stored_size, self._orientation)
        self.is_deep = kind_of(self._header) is not None
        self._is_jpeg = self._header.format == "JPEG" and not isinstance(encoded, Image.Image)

    def rgb(self, annotated_size: Size | None = None) -> Image.Image:
        """Decode the whole image as RGB, upright.

        Args:
            annotated_size: width and height in pixels that annotations of this image were made for; it is not turned
                where only the stored pixels have them.
        """
        image = self._decode(1)
        as_stored = annotated_size == self._stored_size != self.size
        # A copy: without it a JPEG would be the opened file.
        return image.convert("RGB") if as_stored else upright(image, self._orientation).convert("RGB")

    def pixels(self, reduction: int) -> NDArray[np.uint8]:
        """Decode as (H, W, 3), upright; what is returned is kept for the next call, so it cannot be changed.

        Args:
            reduction: the image may have this many times fewer pixels a side, but no fewer. A JPEG at half, a quarter
                or an eighth costs less, as only part of its frequencies is transformed; others stay whole.
        """
        factor = self._factor(reduction)
        if factor not in self._decoded:
            self._decoded[factor] = np.asarray(upright(self._decode(factor), self._orientation))
        return self._decoded[factor]

    def resized(self, size: Size, reduction: float) -> Image.Image | None:
        """Resize as RGB, upright, with antialiasing (bilinear), from a JPEG decoded at reduced size.

        The edges of both grids are the same ones: a reduced pixel that reaches over the image's edge counts in part.

        Args:
            size: width and height in pixels of what is returned.
            reduction: as for `pixels`.

        Returns:
            The image; None where it would be decoded whole.
        """
        if (factor := self._factor(reduction)) == 1:
            return None
        box = (0, 0, self._stored_size[0] / factor, self._stored_size[1] / factor)
        small = self._decode(factor).resize(seen_size(size, self._orientation), Image.Resampling.BILINEAR, box=box)
        return upright(small, self._orientation)

    def _factor(self, reduction: float) -> int:
        return next((factor for factor in JPEG_FACTORS if self._is_jpeg and factor <= reduction), 1)

    def _open(self) -> Image.Image:
        apply_pixel_limit()
        return self.encoded if isinstance(self.encoded, Image.Image) else Image.open(io.BytesIO(self.encoded))

    def _decode(self, factor: int) -> Image.Image:
        """RGB as stored: not yet upright."""
        try:
            image, self._header = self._header or self._open(), None
            if factor > 1:
                self.was_reduced = True
                image.draft(None, (self._stored_size[0] // factor, self._stored_size[1] // factor))
            if self._is_jpeg and image.mode == "RGB":
                image.load()
                return in_srgb(image)  # without a profile the image as it is: `to_rgb` would copy it
            file = self.encoded if isinstance(self.encoded, bytes) else None
            ranges = self._ranges() if self._ranges is not None and self.is_deep else ALONE
            return to_rgb(image, ranges, file)
        except Exception as error:  # decoders of damaged bytes raise nearly anything
            if self._explain is None:
                raise
            raise self._explain(error) from error


def apply_pixel_limit() -> None:
    """Let Pillow read images of up to $DISCO_ZOO_MAX_IMAGE_PIXELS pixels; unset, of up to its own 178,956,970.

    Raises:
        CannotRead: the variable is no positive number.
    """
    text = os.environ.get(PIXELS_VARIABLE)
    if text is None:
        return
    if not text.isdecimal() or not int(text):
        raise CannotRead(f"{PIXELS_VARIABLE}={text} is no number of pixels. Type: export {PIXELS_VARIABLE}=500000000")
    Image.MAX_IMAGE_PIXELS = -(-int(text) // 2)  # Pillow refuses what has more than twice as many


def too_many_pixels(error: Image.DecompressionBombError) -> str:
    """Why an image was not read, and the setting that lets it be."""
    pixels = re.search(r"\d+", str(error))
    many = pixels[0] if pixels else "too many"
    return f"it has {many} pixels, above the limit. To read it: export {PIXELS_VARIABLE}={many}"


def open_image(path: Path, annotated_size: Size | None = None, ranges: ValueRanges = ALONE) -> Image.Image:
    """An image file as RGB, upright; see `SourceImage`.

    Raises:
        Exception: what reading or decoding raises.
    """
    return SourceImage(file_bytes(path), ranges=lambda: ranges).rgb(annotated_size)


def to_rgb(image: Image.Image, ranges: ValueRanges = ALONE, encoded: bytes | None = None) -> Image.Image:
    """Return the image as RGB, in the orientation of its pixels.

    Transparent images are laid over white: the colours below full transparency are arbitrary, often black. Deep images
    become 8 bits (`bit_depth.py`), where Pillow's own conversion would clip nearly all of them to white. Colours are
    those of the ICC profile where it differs visibly from sRGB.

    Args:
        ranges: what is white in deep images.
        encoded: the file, where there is one.
    """
    kind, info = kind_of(image), image.info
    if kind is not None and not (kind == "RGB;16" and ranges.white.get(kind) == FULL[-1]):
        stated = is_stated(image, kind)
        pixels = deep_pixels(image, encoded)
        image = to_8_bits(pixels, FULL[-1] if stated else ranges.white_of(kind, pixels))
        image.info = {key: info[key] for key in ("icc_profile",) if key in info}
    image.load()
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        colors = image.convert("RGB") if image.mode not in ("LA", "La") else image.convert("LA").getchannel("L")
        colors.info = dict(image.info)
        converted = in_srgb(colors)
        if converted is not colors:
            converted.putalpha(layer.getchannel("A"))
            layer = converted
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    if image.mode == "P" and "icc_profile" in image.info:
        image = image.convert("RGB")
    return in_srgb(image).convert("RGB")
