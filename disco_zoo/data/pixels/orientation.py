"""Which way up a photo is: cameras store it as it fell on the sensor and write into EXIF how to turn it.

Photos are turned everywhere: in training, embedding and measuring as people, annotation tools and browsers see them.
"""

from __future__ import annotations

from PIL import Image

_ORIENTATION = 0x0112  # EXIF's tag; 5 to 8 exchange width and height
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
Size = tuple[int, int]


def orientation_of(opened: Image.Image) -> int:
    """EXIF's number, 1 for upright; only the file's header is read."""
    # Of a PNG without EXIF Pillow would decode all pixels to look for some behind them; a TIFF it turns itself.
    if "exif" not in opened.info or opened.format == "TIFF":
        return 1
    try:
        found = opened.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF raises nearly anything, and hides no pixels
        return 1
    return found if found in _TURNS else 1


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """The image turned; itself where it is upright."""
    if orientation == 1:
        return image
    turned = image.transpose(_TURNS[orientation])
    turned.info.pop("exif", None)  # or it would be turned again
    return turned


def seen_size(stored: Size, orientation: int) -> Size:
    """Width and height of the upright image."""
    return stored[::-1] if orientation >= 5 else stored


def sizes_seen(opened: Image.Image) -> tuple[Size, Size]:
    """Width and height as people see the photo, and as its pixels are stored; only the file's header is read."""
    return seen_size(opened.size, orientation_of(opened)), opened.size
