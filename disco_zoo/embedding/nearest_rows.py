"""The nearest rows of an embedding by cosine: exact, by faiss, one block of rows in memory at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from disco_zoo.embedding.embedding_file import EmbeddingFile
from disco_zoo.errors import BadData, require


@dataclass(frozen=True)
class Hit:
    """Row number `row` of an embedding, and its cosine to the query."""

    row: int
    cosine: float


def nearest_rows(
    file: EmbeddingFile, queries: np.ndarray, k: int, own_rows: Sequence[int | None] | None = None
) -> list[list[Hit]]:
    """Find the k nearest rows of each query, nearest first; equal ones in the order of the file.

    Args:
        queries: float (M, D), of any length.
        k: how many; all rows where there are fewer.
        own_rows: of each query the row that it is itself and that is left out, or None.

    Raises:
        BadData: the queries' width is not the file's.
        MissingExtra: no faiss.
    """
    faiss = require("faiss", "train")
    if queries.shape[1] != file.facts.dims:
        raise BadData(f"the query has {queries.shape[1]} numbers and the rows of {file.path} {file.facts.dims}")
    own = [None] * len(queries) if own_rows is None else own_rows
    count = min(k + 1, len(file))  # one more than asked for: a query's own row may be among them
    directions = _unit(queries)
    heap = faiss.ResultHeap(len(queries), count, keep_max=True)
    for first, block in file.blocks():
        here = min(count, len(block))
        cosines, positions = faiss.knn(directions, _unit(block), here, metric=faiss.METRIC_INNER_PRODUCT)
        heap.add_result(*_filled(cosines, positions + first, count))
    heap.finalize()
    return [
        _hits(cosines, rows, k, without)
        for cosines, rows, without in zip(heap.D.tolist(), heap.I.tolist(), own, strict=True)
    ]


def _hits(cosines: list[float], rows: list[int], k: int, own: int | None) -> list[Hit]:
    found = [Hit(row, min(1.0, max(-1.0, cosine))) for cosine, row in zip(cosines, rows, strict=True) if row != own]
    return sorted(found, key=lambda hit: (-hit.cosine, hit.row))[:k]


def _filled(cosines: np.ndarray, rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Results (M, n) at the width (M, count) that the heap wants: what is missing can be no best."""
    missing = count - cosines.shape[1]
    wide = np.pad(cosines, ((0, 0), (0, missing)), constant_values=-np.inf)
    return np.ascontiguousarray(wide), np.ascontiguousarray(np.pad(rows, ((0, 0), (0, missing)), constant_values=-1))


def _unit(rows: np.ndarray) -> np.ndarray:
    """float32 rows of length 1; a row of zeros stays one, with cosine 0 to all."""
    rows = np.ascontiguousarray(rows, dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-30)
