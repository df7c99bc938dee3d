"""One image of a source, decoded when its pixels are wanted: whole, or reduced on the way where it is a JPEG."""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from disco_zoo.errors import CannotRead

JPEG_FACTORS = (8, 4, 2)
PIXELS_VARIABLE = "DISCO_ZOO_MAX_IMAGE_PIXELS"
# Pillow warns at half of its limit, once, of an image that it then reads.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class SourceImage:
    """An image as a source holds it.

    Args:
        encoded: the file's bytes, or the image where the source only has decoded ones.
        explain: makes the error to raise of what a decoder said; None raises that.

    Attributes:
        encoded: as given.
        size: width and height in pixels when whole.

    Raises:
        Exception: what `explain` makes of bytes that are no image; later, of those that are no whole image.
    """

    def __init__(self, encoded: bytes | Image.Image, explain: Callable[[Exception], Exception] | None = None) -> None:
        self._explain = explain
        self.encoded = encoded
        self._decoded: dict[int, NDArray[np.uint8]] = {}
        self._header: Image.Image | None = self._open()
        self.size = self._header.size
        self._is_jpeg = self._header.format == "JPEG" and not isinstance(encoded, Image.Image)

    def rgb(self) -> Image.Image:
        """Decode the whole image as RGB, in the orientation of its pixels (EXIF is not applied, as in timm)."""
        return to_rgb(self._decode(1))

    def pixels(self, reduction: int) -> NDArray[np.uint8]:
        """Decode as (H, W, 3); what is returned is kept for the next call, so it cannot be changed.

        Args:
            reduction: the image may have this many times fewer pixels a side, but no fewer. A JPEG at half, a quarter
                or an eighth costs less, as only part of its frequencies is transformed; others stay whole.
        """
        factor = next((factor for factor in JPEG_FACTORS if self._is_jpeg and factor <= reduction), 1)
        if factor not in self._decoded:
            self._decoded[factor] = np.asarray(self._decode(factor))
        return self._decoded[factor]

    def _open(self) -> Image.Image:
        apply_pixel_limit()
        return self.encoded if isinstance(self.encoded, Image.Image) else Image.open(io.BytesIO(self.encoded))

    def _decode(self, factor: int) -> Image.Image:
        try:
            image, self._header = self._header or self._open(), None
            if factor > 1:
                image.draft(None, (self.size[0] // factor, self.size[1] // factor))
            if self._is_jpeg and image.mode == "RGB":
                image.load()
                return image  # as it is: `to_rgb` would copy it
            return to_rgb(image)
        except Exception as error:  # decoders of damaged bytes raise nearly anything
            raise (error if self._explain is None else self._explain(error)) from error


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


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the image as RGB.

    Transparent images are laid over white: the colours below full transparency are arbitrary, often black.
    16-bit grey is scaled to 8 bits, where Pillow's own conversion would clip nearly all of it to white.
    """
    image.load()
    if image.mode.startswith("I"):
        high_bytes = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255)
        return Image.fromarray(high_bytes.astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")
