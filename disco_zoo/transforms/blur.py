"""Gaussian blur with Pillow's kernel, as one separable filter that takes less than half the time."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from disco_zoo.transforms.color import Planes

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
