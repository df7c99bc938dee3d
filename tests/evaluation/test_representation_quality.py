"""Effective rank and CKA against closed forms, an SVD and HSIC as its authors write it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from disco_zoo.evaluation.metrics import centered_cosine, effective_rank, linear_cka, rank_bound


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def orthogonal(size: int, seed: int = 0) -> Tensor:
    return torch.linalg.qr(gaussian(size, size, seed=seed))[0]


def rank_me(features: Tensor) -> float:
    """The paper's two equations, by an SVD."""
    values = np.linalg.svd(features.double().numpy(), compute_uv=False)
    shares = values / np.abs(values).sum() + 1e-7
    return float(np.exp(-(shares * np.log(shares)).sum()))


@pytest.mark.parametrize(("rows", "dim"), [(8, 8), (16, 40), (40, 16)])
def test_orthonormal_rows_or_columns_have_the_full_rank(rows: int, dim: int) -> None:
    features = orthogonal(max(rows, dim))[:rows, :dim]
    if rows > dim:
        features = orthogonal(rows)[:, :dim]
    assert effective_rank(features) == pytest.approx(min(rows, dim), rel=1e-5)
    assert rank_bound(features) == min(rows, dim)


@pytest.mark.parametrize("features", [torch.ones(64, 32), gaussian(1, 32).expand(64, 32).float(), torch.zeros(64, 32)])
def test_the_same_features_for_all_images_have_rank_one(features: Tensor) -> None:
    """And ε for each of the other singular values: exp(−n · 1e-7 · log 1e-7)."""
    assert effective_rank(features) == pytest.approx(1.0, abs=32 * 1e-7 * 17 + 1e-5)
    assert effective_rank(features) >= 1.0


@pytest.mark.parametrize("clusters", [2, 5, 10])
def test_equal_clusters_have_as_many(clusters: int) -> None:
    features = orthogonal(32)[:clusters].repeat_interleave(6, dim=0)
    assert effective_rank(features) == pytest.approx(clusters, rel=2e-4)


def test_two_singular_values_by_hand() -> None:
    """σ = 3 and 1: H = −¾ log ¾ − ¼ log ¼, so the rank is 4 / 3^¾."""
    features = torch.zeros(6, 5)
    features[0, 2], features[3, 4] = 3.0, 1.0
    assert effective_rank(features) == pytest.approx(4 / 3**0.75, rel=1e-4)


@pytest.mark.parametrize("decay", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("shape", [(512, 1280), (300, 64)])
def test_gram_matrices_give_what_an_svd_gives(shape: tuple[int, int], decay: float) -> None:
    """Also where singular values span five orders of magnitude, and where features share one large component."""
    scales = torch.arange(1, shape[1] + 1, dtype=torch.float64) ** -decay
    features = (gaussian(*shape) * scales).float()
    assert effective_rank(features) == pytest.approx(rank_me(features), rel=1e-6)
    assert effective_rank(features + 30) == pytest.approx(rank_me(features + 30), rel=1e-5)
    low = features[:, :4] @ features[:4]
    assert effective_rank(low) == pytest.approx(rank_me(low), rel=1e-4)


def hsic(x: Tensor, y: Tensor) -> Tensor:
    """Tr(KHLH) / (n − 1)² with H = 1 − 11ᵀ/n, as Kornblith et al. write it."""
    number = len(x)
    centring = torch.eye(number, dtype=x.dtype) - 1.0 / number
    return torch.trace(x @ x.T @ centring @ y @ y.T @ centring) / (number - 1) ** 2


@pytest.mark.parametrize(("dim", "other"), [(7, 7), (20, 90), (200, 33)])
def test_cka_is_normalised_hsic(dim: int, other: int) -> None:
    x = gaussian(60, dim) + 3
    y = gaussian(60, other, seed=1) + x @ gaussian(dim, other, seed=2)
    expected = hsic(x, y) / (hsic(x, x) * hsic(y, y)).sqrt()
    assert linear_cka(x, y) == pytest.approx(float(expected), rel=1e-9)
    x, y = x - x.mean(dim=0), y - y.mean(dim=0)
    expected = (y.T @ x).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())
    assert linear_cka(x, y) == pytest.approx(float(expected), rel=1e-9)


def test_cka_ignores_rotation_scale_and_shift_but_not_a_linear_map() -> None:
    x = gaussian(80, 24)
    for same in (x @ orthogonal(24, seed=3), 1000 * x, x + gaussian(24, seed=4), -x):
        assert linear_cka(x, same) == pytest.approx(1.0, abs=1e-12)
    assert linear_cka(x, x * torch.arange(1, 25)) < 0.95


def test_cka_of_independent_features_is_small_for_many_images_and_biased_for_few() -> None:
    """r / (N + r) for r directions of equal strength on both sides."""
    for images, dim in ((4000, 16), (512, 512)):
        found = linear_cka(gaussian(images, dim), gaussian(images, dim, seed=1))
        assert found == pytest.approx(dim / (images + dim), rel=0.1)


def test_features_that_do_not_vary_share_nothing() -> None:
    constant = gaussian(1, 32).float().expand(48, 32)
    assert linear_cka(constant, gaussian(48, 8)) == 0.0
    assert linear_cka(gaussian(48, 8), torch.zeros(48, 3)) == 0.0


def test_centred_cosine_by_hand() -> None:
    x, y = gaussian(30, 6), gaussian(30, 6, seed=1)
    a, b = (rows.numpy() - rows.numpy().mean(axis=0) for rows in (x, y))
    expected = np.mean([i @ j / math.sqrt(i @ i * (j @ j)) for i, j in zip(a, b, strict=True)])
    assert centered_cosine(x, y) == pytest.approx(expected, rel=1e-9)
    assert centered_cosine(x + 100, 5 * x - 7) == pytest.approx(1.0, abs=1e-9)
    assert centered_cosine(x, -x) == pytest.approx(-1.0, abs=1e-9)
