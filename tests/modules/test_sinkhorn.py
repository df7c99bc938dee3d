"""Sinkhorn-Knopp: closed forms, invariances, and the formula written a second time."""

from __future__ import annotations

import math

import pytest
import torch
from plain_sinkhorn import plain_sinkhorn, scores_of

from disco_zoo.modules.swapped_prediction import sinkhorn


@pytest.mark.parametrize("iterations", [1, 3, 10])
def test_sinkhorn_equals_the_formula_written_out(iterations: int) -> None:
    scores = scores_of(6, 4)
    expected = torch.tensor(plain_sinkhorn(scores, 0.05, iterations), dtype=torch.float64)
    assert torch.allclose(sinkhorn(scores, epsilon=0.05, iterations=iterations), expected, atol=1e-9)


def test_equal_scores_are_shared_evenly() -> None:
    found = sinkhorn(torch.full((5, 8), 0.3), epsilon=0.05, iterations=3)
    assert torch.allclose(found, torch.full((5, 8), 1 / 8), atol=1e-6)


def test_samples_sum_to_one_and_prototypes_end_with_equal_shares() -> None:
    # Without the prototypes' share all six samples would go to prototype 0.
    scores = scores_of(6, 3)
    scores[:, 0] += 2
    few, many = (sinkhorn(scores, epsilon=0.2, iterations=n) for n in (1, 500))
    for found in (few, many):
        assert torch.allclose(found.sum(dim=1), torch.ones(6, dtype=torch.float64), atol=1e-12)
    assert (few.sum(dim=0) - 2).abs().max() > 1e-3
    assert torch.allclose(many.sum(dim=0), torch.full((3,), 2.0, dtype=torch.float64), atol=1e-6)


def test_two_samples_that_prefer_one_prototype_are_divided() -> None:
    # Symmetric 2 x 2: the limit has a = 1 / (1 + exp(-d)), where 4d is the log of the cross ratio over ε.
    scores = torch.tensor([[1.0, 0.0], [0.8, 0.2]], dtype=torch.float64)
    half = (1.0 + 0.2 - 0.0 - 0.8) / 0.5 / 2
    expected = 1 / (1 + math.exp(-half))
    found = sinkhorn(scores, epsilon=0.5, iterations=200)
    wanted = torch.tensor([[expected, 1 - expected], [1 - expected, expected]], dtype=torch.float64)
    assert torch.allclose(found, wanted, atol=1e-9)


def test_order_of_samples_and_prototypes_does_not_matter() -> None:
    scores = scores_of(7, 5)
    samples, prototypes = torch.randperm(7), torch.randperm(5)
    found = sinkhorn(scores, epsilon=0.05, iterations=3)
    permuted = sinkhorn(scores[samples][:, prototypes], epsilon=0.05, iterations=3)
    assert torch.allclose(permuted, found[samples][:, prototypes], atol=1e-12)


def test_a_constant_and_a_prototypes_own_constant_cancel() -> None:
    scores = scores_of(7, 5)
    found = sinkhorn(scores, epsilon=0.05, iterations=3)
    assert torch.allclose(sinkhorn(scores + 3, epsilon=0.05, iterations=3), found, atol=1e-9)
    shifted = scores + torch.tensor([0.0, 0.5, -1.0, 2.0, 0.1], dtype=torch.float64)
    assert torch.allclose(sinkhorn(shifted, epsilon=0.05, iterations=3), found, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_tiny_epsilon_gives_hard_assignments_and_no_nan(dtype: torch.dtype) -> None:
    scores = (torch.eye(4) * 1.5 - 0.7).to(dtype)
    found = sinkhorn(scores, epsilon=1e-4, iterations=3)
    assert found.dtype == torch.float32
    assert torch.allclose(found, torch.eye(4), atol=1e-6)


def test_full_precision_under_autocast_and_no_gradient() -> None:
    scores = scores_of(6, 4).float().requires_grad_()
    plain = sinkhorn(scores, epsilon=0.05, iterations=3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = sinkhorn(scores, epsilon=0.05, iterations=3)
    assert torch.equal(found, plain)
    assert not found.requires_grad
