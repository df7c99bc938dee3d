"""Photos the way they were annotated: cameras write how to turn the pixels into EXIF, and most tools turn them."""

from __future__ import annotations

from PIL import Image, ImageOps

_ORIENTATION = 0x0112  # EXIF's tag; 5 to 8 exchange width and height
Size = tuple[int, int]


def sizes_seen(opened: Image.Image) -> tuple[Size, Size]:
    """Width and height as people see the photo, and as its pixels are stored; only the file's header is read."""
    stored = opened.size
    # Of a PNG without EXIF Pillow would decode all pixels to look for some behind them.
    turned = "exif" in opened.info and opened.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
    return (stored[::-1] if turned else stored), stored


def as_annotated(image: Image.Image, size: Size) -> Image.Image:
    """Turn a photo by its EXIF orientation, unless only the stored pixels have the annotated width and height."""
    turned = ImageOps.exif_transpose(image)
    return image if image.size == size != turned.size else turned
