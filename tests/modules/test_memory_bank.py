"""Memories: uniform starts, rings that wrap, rows by image number."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from disco_zoo.modules.momentum_contrast import IndexedMemory, ring_memory, uniform_rows


def unit_rows(number: int, seed: int, dim: int = 4) -> Tensor:
    return F.normalize(torch.randn(number, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_uniform_rows_fill_their_range_and_are_of_unit_length_on_average_only() -> None:
    torch.manual_seed(0)
    rows = uniform_rows(4000, 12)
    bound = 1 / (12 / 3) ** 0.5
    assert rows.abs().max() <= bound
    assert rows.max() > 0.999 * bound
    assert rows.min() < -0.999 * bound
    assert rows.pow(2).sum(dim=1).mean().item() == pytest.approx(1.0, abs=0.01)
    assert rows.norm(dim=1).std() > 0.05


@pytest.mark.parametrize("batch", [1, 3, 4, 7, 10])
def test_ring_starts_uniform_and_wraps_around_at_any_batch_size(batch: int) -> None:
    memory = ring_memory(10, 12)
    assert memory.rows.abs().max() <= 0.5
    assert memory.rows.norm(dim=1).std() > 0.01
    expected, written = memory.rows.tolist(), 0
    for step in range(6):
        rows = unit_rows(batch, step, 12)
        memory.write(rows)
        for row in rows.tolist():
            expected[written % 10] = row
            written += 1
        assert memory.rows.tolist() == expected


def test_indexed_update_is_the_formula_and_touches_the_named_rows_alone() -> None:
    memory = IndexedMemory(9, 4, 0.7)
    before, snapshot = memory.rows.double().clone(), memory.snapshot()
    embeddings = unit_rows(3, 1)
    memory.update(torch.tensor([7, 0, 4]), embeddings)
    for row, number in enumerate((7, 0, 4)):
        mixed = 0.7 * before[number] + 0.3 * embeddings[row].double()
        assert torch.allclose(memory.rows[number].double(), mixed / mixed.norm(), atol=1e-6)
    rest = [1, 2, 3, 5, 6, 8]
    assert torch.equal(memory.rows[rest].double(), before[rest])
    assert torch.equal(snapshot.double(), before)
    assert set(memory.state_dict()) == {"rows"}
