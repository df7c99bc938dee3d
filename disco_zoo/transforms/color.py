"""Changes of colour on planes of pixels (3, H, W) from 0 to 255, whole or broken numbers; (1, H, W) is grey.

They do what Pillow's ImageEnhance and HSV do, as in the papers' code, but round less often, and turn hues without a
division: several times faster. Each is a fixed sequence of NumPy operations, so the number of threads changes no bit.
All of them may overwrite what they are given.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Planes = NDArray[np.float32] | NDArray[np.int16] | NDArray[np.uint8]
LUMA = (0.299, 0.587, 0.114)  # ITU-R 601-2, Pillow's "L"
SEXTANT_OF_CHANNEL = (0, 2, 4)  # where red, green and blue lie on the wheel of hues
FRACTION_BITS = 8
FRACTION_STEPS = 2**FRACTION_BITS


def luma(pixels: Planes) -> NDArray[np.float32]:
    """The brightness that the eye sees, (1, H, W)."""
    pixels = as_float(pixels)
    if len(pixels) == 1:
        return pixels
    gray = pixels[:1] * np.float32(LUMA[0])
    gray += pixels[1:2] * np.float32(LUMA[1])
    gray += pixels[2:] * np.float32(LUMA[2])
    return gray


def brightened(pixels: Planes, factor: float) -> NDArray[np.float32]:
    """`factor` times as bright."""
    pixels = as_float(pixels)
    pixels *= np.float32(factor)
    return _clipped(pixels, factor)


def contrasted(pixels: Planes, factor: float) -> NDArray[np.float32]:
    """`factor` times as far from the mean luma, which is rounded as Pillow does."""
    pixels = as_float(pixels)
    means = np.einsum("cij->c", pixels) / pixels[0].size
    mean = float(means[0]) if len(means) == 1 else sum(w * float(m) for w, m in zip(LUMA, means, strict=True))
    pixels *= np.float32(factor)
    pixels += np.float32((1 - factor) * int(mean + 0.5))
    return _clipped(pixels, factor)


def saturated(pixels: Planes, factor: float) -> Planes:
    """`factor` times as far from grey of the same luma."""
    if len(pixels) == 1:
        return pixels
    pixels = as_float(pixels)
    gray = luma(pixels)
    gray *= np.float32(1 - factor)
    pixels *= np.float32(factor)
    pixels += gray
    return _clipped(pixels, factor)


def hue_turned(pixels: Planes, turns: float) -> NDArray[np.int16] | Planes:
    """Turn hues by `turns` of the wheel, at the same saturation and value of HSV; the result is rounded.

    With V, m and C the largest of r, g, b, the smallest, and their difference, a hue's way from red on the wheel of six
    is, times C, sign(g-b)·((V-r) + |g-b| + 2·(min(g, b)-m)); a channel is m + C·clip(2-d, 0, 1), d its distance to the
    hue. So no pixel has to ask in which sextant it lies, and whole numbers of 16 bits do.
    """
    if len(pixels) == 1:
        return pixels
    if pixels.dtype == np.float32:
        pixels += np.float32(0.5)
    pixels = pixels.astype(np.int16, copy=False)
    red, green, blue = pixels
    value = np.maximum(red, green)
    np.maximum(value, blue, out=value)
    way = np.minimum(green, blue)
    least = np.minimum(way, red)
    way -= least
    way += way
    side = green - blue
    sign = side >> 15
    sign |= 1
    way += np.abs(side, out=side)
    way += value
    way -= red
    way *= sign
    chroma = value - least
    whole, fraction = divmod(6 * turns, 1)
    part = chroma.astype(np.uint16)
    part *= np.uint16(fraction * FRACTION_STEPS + 0.5)
    part >>= FRACTION_BITS
    way += part.view(np.int16)
    half, zero = np.multiply(chroma, 3, out=sign), np.subtract(least, chroma, out=side)
    for channel, sextant in zip(pixels, SEXTANT_OF_CHANNEL, strict=True):
        np.multiply(chroma, np.int16((whole - sextant + 3) % 6 - 3), out=channel)
        channel += way
        # |x|-3C, once more in absolute value, is 3C minus the distance on the wheel, for x from -6C to 6C.
        np.abs(channel, out=channel)
        channel -= half
        np.abs(channel, out=channel)
        channel += zero
        np.maximum(channel, least, out=channel)
        np.minimum(channel, value, out=channel)
    return pixels


def as_float(pixels: Planes) -> NDArray[np.float32]:
    """The same as float32; not a copy of what is that."""
    return pixels.astype(np.float32, copy=False)


def _clipped(pixels: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    """Within 0 to 255, which only factors above 1 leave."""
    return np.clip(pixels, 0, 255, out=pixels) if factor > 1 else pixels
