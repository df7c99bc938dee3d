"""Checksums of views, of the teacher's rows, and of blocks of both."""

from __future__ import annotations

import zlib

import numpy as np
from torch import Tensor


def view_crc(view: Tensor) -> int:
    """CRC-32 of a view's pixels, by which a replayed view is known to be the first one, bit for bit."""
    return zlib.crc32(view.contiguous().numpy().data)


def pair_crc(row: np.ndarray, view_crc: int) -> int:
    """CRC-32 of a view's pixels, whose own is known, and after them its row float16 (width,)."""
    return zlib.crc32(np.ascontiguousarray(row, dtype="<f2").data, int(view_crc))


def block_crc(rows: np.ndarray, pairs: np.ndarray) -> int:
    """CRC-32 of rows float16 (slots, n, width) and of their pairs' CRCs uint32 (slots, n)."""
    crc = zlib.crc32(np.ascontiguousarray(rows, dtype="<f2").tobytes())
    return zlib.crc32(np.ascontiguousarray(pairs, dtype="<u4").tobytes(), crc)
