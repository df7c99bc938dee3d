"""The nearest neighbours of every row of a feature bank, by faiss, without the row itself.

The row itself is left out by its number and not by its rank: among duplicates it need not come first
(spec Q18). The distances of one block of queries exist at a time, never all N².
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from disco_zoo.core.console import console
from disco_zoo.core.launcher import processes_on_this_machine, usable_cores
from disco_zoo.errors import BadRecipe, require

Progress = Callable[[int, int], None]

# Measured on 2 CPU cores: all of 200,000 rows of 512 numbers take 6.5 min each with each and 1.7 min by inverted lists,
# which find 97 of 100 neighbours; 50,000 rows of 2048 take 0.6 min each with each, and no less by lists.
FLAT_LIMIT = 200_000
LISTS_PER_ROOT = 4  # inverted lists: so many times √N, faiss's own advice
TRAINING_ROWS_PER_LIST = 64
PROBES = 64  # 32 lose 9 of 100 neighbours there
QUERY_BLOCK = 4096


def nearest_neighbors(
    rows: np.ndarray,
    count: int,
    numbers: np.ndarray | None = None,
    *,
    flat_limit: int = FLAT_LIMIT,
    progress: Progress | None = None,
) -> np.ndarray:
    """Find the `count` nearest other rows of each row, nearest first.

    Between unit rows the smallest L2 distance is the largest inner product.

    Args:
        rows: (N, D), L2-normalised, of any float type; may be memory-mapped.
        count: k.
        numbers: int64 (M,), which rows take part; all by default.
        flat_limit: up to so many rows each is compared with each (exact); beyond, with those in the `PROBES` nearest
            of 4·√M inverted lists.
        progress: called after each block with (rows done, rows in total).

    Returns:
        int64 (M, k), numbers of rows, never a row's own.

    Raises:
        BadRecipe: there are not more than k rows.
        MissingExtra: no faiss.
    """
    numbers = np.arange(len(rows)) if numbers is None else numbers
    if len(numbers) <= count:
        raise BadRecipe(f"{count} neighbours need at least {count + 1} readable images, there are {len(numbers)}")
    with _all_cores():
        if len(numbers) <= flat_limit:
            index = _flat(rows, numbers)
        else:
            console.print(f"neighbours: sorting {len(numbers)} images into lists, which takes minutes without a bar")
            index = _inverted_lists(rows, numbers)
        found = np.empty((len(numbers), count), np.int64)
        for first, block in _blocks(numbers):
            positions = _search(index, _read(rows, block), count + 1)
            own = np.arange(first, first + len(block))
            found[first : first + len(block)] = numbers[without_own(positions, own)]
            if progress is not None:
                progress(first + len(block), len(numbers))
    return found


@contextlib.contextmanager
def _all_cores() -> Iterator[None]:
    """Launchers give each process of a run one thread; while this one searches, the others wait.

    faiss may share its threads with torch, hence both are put back.
    """
    if processes_on_this_machine() == 1:
        yield
        return
    faiss = require("faiss", "train")
    former = faiss.omp_get_max_threads(), torch.get_num_threads()
    faiss.omp_set_num_threads(usable_cores())
    try:
        yield
    finally:
        faiss.omp_set_num_threads(former[0])
        torch.set_num_threads(former[1])


def without_own(found: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Drop from each row of numbers (b, k + 1) its own (b,), or the last where duplicates crowded it out: (b, k)."""
    drop = found == own[:, None]
    drop[~drop.any(axis=1), -1] = True
    return found[~drop].reshape(len(found), -1)


def _flat(rows: np.ndarray, numbers: np.ndarray) -> Any:
    index = require("faiss", "train").IndexFlatIP(rows.shape[1])
    for _, block in _blocks(numbers):
        index.add(_read(rows, block))
    return index


def _inverted_lists(rows: np.ndarray, numbers: np.ndarray) -> Any:
    """Half precision inside: the rows of ImageNet would take twice the memory otherwise."""
    faiss = require("faiss", "train")
    num_lists = LISTS_PER_ROOT * math.isqrt(len(numbers))
    width = rows.shape[1]
    index = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(width), width, num_lists, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT, False
    )
    # Evenly spread: files are often sorted by class.
    sample = np.linspace(0, len(numbers) - 1, min(len(numbers), TRAINING_ROWS_PER_LIST * num_lists)).astype(np.int64)
    index.cp.max_points_per_centroid = TRAINING_ROWS_PER_LIST
    index.cp.min_points_per_centroid = 1  # faiss warns on stdout otherwise
    index.train(_read(rows, numbers[sample]))
    for _, block in _blocks(numbers):
        index.add(_read(rows, block))
    index.nprobe = min(PROBES, num_lists)
    return index


def _search(index: Any, queries: np.ndarray, count: int) -> np.ndarray:
    """Positions int64 (b, count); where the probed lists hold too few rows, more of them are probed."""
    found: np.ndarray = index.search(queries, count)[1]
    probes = usual = getattr(index, "nprobe", 0)
    while probes and (short := np.flatnonzero((found < 0).any(axis=1))).size:
        index.nprobe = probes = 4 * probes  # beyond the number of lists: all of them
        found[short] = index.search(queries[short], count)[1]
    if usual:
        index.nprobe = usual
    return found


def _blocks(numbers: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Consecutive pieces of `numbers`, each with the position of its first."""
    for first in range(0, len(numbers), QUERY_BLOCK):
        yield first, numbers[first : first + QUERY_BLOCK]


def _read(rows: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """float32 (b, D), of unit length again where half precision had rounded it."""
    found = np.ascontiguousarray(rows[numbers], dtype=np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True).clip(1e-12)
