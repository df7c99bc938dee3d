"""Neighbours: equal to a blocked torch search, never the row itself, whatever is duplicated."""

from __future__ import annotations

import os
import tracemalloc

import faiss
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from disco_zoo.errors import BadRecipe
from disco_zoo.modules.nearest_neighbors import nearest_neighbors, without_own


def unit_rows(number: int, dim: int = 16, seed: int = 0) -> np.ndarray:
    rows = torch.randn(number, dim, generator=torch.Generator().manual_seed(seed))
    return F.normalize(rows, dim=1).numpy()


def reference(rows: np.ndarray, count: int, block: int = 64) -> np.ndarray:
    """L2 distances in float64, block by block, the own row set to infinity."""
    points = torch.from_numpy(rows.astype(np.float64))
    found = []
    for first in range(0, len(points), block):
        distances = (points[first : first + block, None] - points[None]).pow(2).sum(dim=2)
        own = torch.arange(first, first + len(distances))
        distances[torch.arange(len(distances)), own] = torch.inf
        found.append(distances.topk(count, largest=False).indices)
    return torch.cat(found).numpy()


def test_neighbours_equal_a_blocked_torch_search() -> None:
    rows = unit_rows(700)
    assert np.array_equal(nearest_neighbors(rows, 5), reference(rows, 5))


def test_half_precision_rows_have_the_neighbours_of_their_rounded_values() -> None:
    rows = unit_rows(300).astype(np.float16)
    rounded = F.normalize(torch.from_numpy(rows).double(), dim=1).numpy()
    assert np.array_equal(nearest_neighbors(rows, 4), reference(rounded, 4))


def test_a_row_is_not_its_own_neighbour_among_any_number_of_duplicates() -> None:
    """Q18: rank 0 need not be the row itself."""
    rows = unit_rows(60)
    rows[20:50] = rows[0]
    found = nearest_neighbors(rows, 5)
    assert not (found == np.arange(60)[:, None]).any()
    assert all(len(set(row)) == 5 for row in found.tolist())
    copies = {0, *range(20, 50)}
    for number in copies:
        assert set(found[number]) <= copies - {number}
    unique = [n for n in range(60) if n not in copies]
    assert np.array_equal(found[unique][:, 0], reference(rows, 1)[unique][:, 0])


def test_without_own_drops_the_own_number_or_else_the_last() -> None:
    found = np.array([[3, 0, 4], [7, 8, 9], [2, 5, 6]])
    assert without_own(found, np.array([0, 1, 2])).tolist() == [[3, 4], [7, 8], [5, 6]]


def test_only_the_given_rows_take_part() -> None:
    rows = unit_rows(100)
    numbers = np.setdiff1d(np.arange(100), [0, 17, 50])
    found = nearest_neighbors(rows, 5, numbers)
    assert np.array_equal(found, numbers[reference(rows[numbers], 5)])
    assert not np.isin(found, [0, 17, 50]).any()


def test_inverted_lists_find_nearly_all_neighbours_and_never_the_row_itself() -> None:
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((20, 16))
    rows = centres[generator.integers(0, 20, 2000)] + 0.3 * generator.standard_normal((2000, 16))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    found, exact = nearest_neighbors(rows, 5, flat_limit=100), reference(rows, 5)
    recall = np.mean([len(set(a) & set(b)) / 5 for a, b in zip(found.tolist(), exact.tolist(), strict=True)])
    assert recall > 0.9
    assert not (found == np.arange(2000)[:, None]).any()


def test_a_word_before_the_lists_are_built_and_none_without_lists(capsys: pytest.CaptureFixture[str]) -> None:
    rows = unit_rows(200)
    nearest_neighbors(rows, 5, flat_limit=200)
    assert capsys.readouterr().err == ""
    nearest_neighbors(rows, 5, flat_limit=199)
    assert capsys.readouterr().err.startswith("neighbours: sorting 200 images into lists,")


def test_inverted_lists_probe_more_where_the_nearest_lists_hold_too_few() -> None:
    rows = np.repeat(unit_rows(2), [640, 640], axis=0)  # two points: of 140 lists nearly all are empty
    found = nearest_neighbors(rows, 700, flat_limit=100)
    assert found.min() >= 0
    assert not (found == np.arange(1280)[:, None]).any()


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(BadRecipe, match="5 neighbours need at least 6 readable images, there are 5"):
        nearest_neighbors(unit_rows(5), 5)


def test_search_reports_its_progress_and_holds_one_block_of_distances() -> None:
    rows, seen = unit_rows(9000, 4), []
    tracemalloc.start()
    nearest_neighbors(rows, 5, progress=lambda done, total: seen.append((done, total)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seen == [(4096, 9000), (8192, 9000), (9000, 9000)]
    assert peak < 9000 * 9000  # bytes; all distances would take four times that


def test_one_process_of_several_searches_with_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    before, former = torch.get_num_threads(), faiss.omp_set_num_threads
    monkeypatch.setattr(faiss, "omp_set_num_threads", lambda number: (given.append(number), former(number)))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(3))
    rows = np.eye(4, dtype=np.float32)
    nearest_neighbors(rows, 1)
    assert given == []  # alone it has what the user gave it
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    nearest_neighbors(rows, 1)
    assert given == [3, given[1]]
    assert torch.get_num_threads() == before
