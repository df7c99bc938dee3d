"""Color and blur of planes of pixels (3, H, W) from 0 to 255, integers or floats; (1, H, W) is gray.

Colors do what Pillow's ImageEnhance and HSV do, as in the papers' code, but round less often, and turn hues without a
division: several times faster. Each is a fixed sequence of NumPy operations, so the number of threads changes no bit.
All of them may overwrite their input. The blur has Pillow's kernel, as one separable filter that takes less than half
the time.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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


PASSES = 3  # of Pillow's box filter
WEIGHTS, LEVELS = 2**12, 2**4  # 255 · LEVELS · WEIGHTS stays below 2^24
TILE = 16  # outputs that one small matrix product makes


def gaussian_kernel(sigma: float) -> NDArray[np.float64]:
    """Weights of the three box filters by which Pillow approximates a Gaussian of `sigma` pixels, an odd number.

    A box of whole half-width l and two outer pixels of weight a has the variance sigma²/3 (Gwosdek et al. 2011).
    """
    variance = sigma * sigma / PASSES
    half = math.floor((math.sqrt(12 * variance + 1) - 1) / 2)
    outer = (2 * half + 1) * (half * (half + 1) - 3 * variance) / (6 * (variance - (half + 1) ** 2))
    box = np.ones(2 * half + 3)
    box[[0, -1]] = outer
    box /= box.sum()
    return functools.reduce(np.convolve, [box] * PASSES)


def blurred(pixels: Planes, sigma: float) -> NDArray[np.float32]:
    """Blur planes (C, H, W) from 0 to 255, rounded before; pixels beyond the edge repeat it.

    Matrix products add up in an order that depends on processor and threads. Here pixels are whole, weights are whole
    4096ths and what lies between the two passes is whole 16ths: every sum is exact in float32, in whatever order.
    """
    planes, height, width = pixels.shape
    matrix = _tile_matrix(sigma)
    reach = (len(matrix) - TILE) // 2
    rows, columns = (-(-side // TILE) * TILE for side in (height, width))
    # Rows outside, so that a band of rows of all planes is one matrix.
    padded = np.empty((rows + 2 * reach, planes, columns + 2 * reach), np.float32)
    inner = padded[reach : reach + height, :, reach : reach + width]
    inner[:] = pixels.transpose(1, 0, 2)
    padded[reach : reach + height, :, :reach] = inner[:, :, :1]
    padded[reach : reach + height, :, reach + width :] = inner[:, :, -1:]
    padded[:reach] = padded[reach]
    padded[reach + height :] = padded[reach + height - 1]
    np.rint(padded, out=padded)
    with _whole_float32():
        both = _filtered(torch.from_numpy(padded), matrix)
    return both[:height, :, :width].permute(1, 0, 2).numpy()


def _filtered(padded: Tensor, matrix: NDArray[np.float32]) -> Tensor:
    """Filter (rows + 2·reach, C, columns + 2·reach) across and down."""
    planes, reach = padded.shape[1], (len(matrix) - TILE) // 2
    rows, columns = padded.shape[0] - 2 * reach, padded.shape[2] - 2 * reach
    lines = padded.flatten(0, 1)
    parts = lines.unfold(1, len(matrix), TILE).movedim(1, 0)
    across = lines.new_empty(len(lines), columns)
    weights = torch.from_numpy(matrix * LEVELS).expand(len(parts), -1, -1)
    torch.bmm(parts, weights, out=across.unflatten(1, (-1, TILE)).movedim(1, 0))
    bands = across.round_().view(-1, planes * columns).unfold(0, len(matrix), TILE).movedim(2, 1)
    weights = torch.from_numpy(matrix.T / LEVELS).expand(len(bands), -1, -1)
    return torch.bmm(weights, bands).view(rows, planes, columns)


@contextlib.contextmanager
def _whole_float32() -> Iterator[None]:
    """No product in bfloat16, whatever autocast or the matmul precision of the process allow."""
    precision = torch.get_float32_matmul_precision()
    if precision != "highest":
        torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast("cpu", enabled=False):
            yield
    finally:
        if precision != "highest":
            torch.set_float32_matmul_precision(precision)


def _tile_matrix(sigma: float) -> NDArray[np.float32]:
    """The filter as a matrix (TILE + 2·reach, TILE), each column with the sum 1 in whole WEIGHTS-ths."""
    kernel = np.rint(gaussian_kernel(sigma) * WEIGHTS)
    reach = len(kernel) // 2
    kernel[reach] += WEIGHTS - kernel.sum()
    kernel /= WEIGHTS
    matrix = np.zeros((TILE + 2 * reach, TILE), np.float32)
    down, right = matrix.strides
    np.lib.stride_tricks.as_strided(matrix, (TILE, len(kernel)), (down + right, down))[:] = kernel
    return matrix
