"""ICC profiles: converts pixels to sRGB where the difference is visible."""

from __future__ import annotations

import functools
import io
import itertools
from typing import Any

import numpy as np
from PIL import Image, features

VISIBLE = 6  # levels of 255 by which one of the probed colours must move
PROBES = (0, 64, 128, 192, 255)
_CHANNELS = {"L": 1, "RGB": 3, "CMYK": 4, "LAB": 3}


def in_srgb(image: Image.Image) -> Image.Image:
    """The image as RGB by its profile, or itself where it has none that changes it visibly."""
    if image.mode not in _CHANNELS:
        return image
    transform = _transform(image.info.get("icc_profile") or b"", image.mode)
    if transform is None:
        return image
    converted: Image.Image = transform.apply(image)
    return converted


def changes_colors(image: Image.Image) -> bool:
    """Whether `in_srgb` would make another image."""
    return image.mode in _CHANNELS and _transform(image.info.get("icc_profile") or b"", image.mode) is not None


@functools.lru_cache(maxsize=64)
def _transform(profile: bytes, mode: str) -> Any:
    """Pillow's transform to sRGB; None without a profile, for one that says next to nothing, or a damaged one."""
    if not (profile or mode == "LAB") or not features.check("littlecms2"):
        return None
    from PIL import ImageCms

    srgb = ImageCms.createProfile("sRGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile)) if profile else ImageCms.createProfile("LAB")
        transform = ImageCms.buildTransform(source, srgb, mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None  # damaged, or of another kind of image than this one
    probes = _probes(mode)
    plain = probes if mode == "LAB" else probes.convert("RGB")
    moved = np.abs(np.asarray(transform.apply(probes)).astype(int) - np.asarray(plain).astype(int))
    return transform if mode == "LAB" or moved.max() > VISIBLE else None


def _probes(mode: str) -> Image.Image:
    colors = np.asarray([*itertools.product(PROBES, repeat=_CHANNELS[mode])], dtype=np.uint8)
    return Image.frombytes(mode, (len(colors), 1), colors.tobytes())
