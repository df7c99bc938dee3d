"""Vision transformers off their own size: how far timm's position embeddings are from DINO's (spec 8).

DINO (7c446df) keeps one table of 14 x 14 and reads it by a bicubic kernel without antialiasing, at places that a scale
of (cells + 0.1) / 14 gives. Here that is written number by number.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import timm
import torch
from torch import Tensor
from torch.nn import functional as F

from disco_zoo.networks.input_size import create_for_any_size, fit_input_size

NAME = "vit_tiny_patch16_224"


def cubic(distance: float) -> float:
    """Keys' kernel with a = -0.75, PyTorch's."""
    x, a = abs(distance), -0.75
    if x <= 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a if x < 2 else 0.0


def dino_weights(old: int, new: int) -> np.ndarray:
    """(new, old): how much of each old cell a new one takes, along one side."""
    scale = (new + 0.1) / old
    weights = np.zeros((new, old))
    for cell in range(new):
        place = (cell + 0.5) / scale - 0.5
        for tap in range(math.floor(place) - 1, math.floor(place) + 3):
            weights[cell, min(max(tap, 0), old - 1)] += cubic(place - tap)
    return weights


def dino_table(table: Tensor, new: int) -> Tensor:
    """Position embeddings (1, 1 + new², D) from (1, 1 + old², D)."""
    old = math.isqrt(table.shape[1] - 1)
    weights = torch.from_numpy(dino_weights(old, new))
    grid = table[0, 1:].double().reshape(old, old, -1)
    read = torch.einsum("yi,xj,ijd->yxd", weights, weights, grid).reshape(1, new * new, -1)
    return torch.cat([table[:, :1].double(), read], dim=1).to(table.dtype)


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    """Random weights, and a table as uneven as a trained one: smooth waves of unit size and some noise."""
    torch.manual_seed(0)
    model = create_for_any_size(NAME, num_classes=0).eval()
    y, x = torch.meshgrid(torch.arange(14.0), torch.arange(14.0), indexing="ij")
    phase, turn = torch.rand(192) * 6, torch.rand(192, 2)
    waves = torch.sin(phase + turn[:, 0] * y[..., None] + turn[:, 1] * x[..., None]).reshape(1, 196, 192)
    with torch.no_grad():
        model.pos_embed[:, 1:] = waves + 0.2 * torch.randn(1, 196, 192)
    return model


def features_with(network: torch.nn.Module, table: Tensor, images: Tensor) -> Tensor:
    """Of the same network built for the size of the images alone, with these position embeddings."""
    fixed = timm.create_model(NAME, num_classes=0, img_size=images.shape[-1]).eval()
    fixed.load_state_dict({**network.state_dict(), "pos_embed": table})
    with torch.no_grad():
        return fixed(images)


def test_the_definition_is_pytorchs_interpolation_by_a_scale_factor() -> None:
    grid = torch.randn(1, 3, 14, 14, dtype=torch.float64)
    for new in (6, 14, 24):
        scale = (new + 0.1) / 14
        weights = torch.from_numpy(dino_weights(14, new))
        read = torch.einsum("yi,xj,cij->cyx", weights, weights, grid[0])
        assert torch.allclose(read, F.interpolate(grid, scale_factor=(scale, scale), mode="bicubic")[0], atol=1e-12)


@pytest.mark.parametrize(("size", "low", "high"), [(224, 0.0, 1e-5), (96, 0.005, 0.3), (384, 0.005, 0.3)])
def test_ours_are_the_authors_at_224_px_and_elsewhere_differ_by_the_resampling_alone(
    network: torch.nn.Module, size: int, low: float, high: float
) -> None:
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    table = network.pos_embed.detach()
    theirs = features_with(network, table if size == 224 else dino_table(table, size // 16), images)
    with torch.no_grad():
        ours = network(images)
    share = float((ours - theirs).abs().max() / theirs.abs().max())
    assert low <= share <= high, share
    if size != 224:  # and of timm's rule, written out by timm for a network of this size, nothing differs
        resampled = timm.layers.resample_abs_pos_embed(table, new_size=[size // 16] * 2, num_prefix_tokens=1)
        assert torch.allclose(ours, features_with(network, resampled, images), atol=1e-5)


def test_another_size_is_said_and_its_own_is_not(network: torch.nn.Module, capsys: pytest.CaptureFixture[str]) -> None:
    fit_input_size(network, 224, "my ViT")
    assert "resampled" not in capsys.readouterr().err
    fit_input_size(network, 96, "my ViT")
    said = " ".join(capsys.readouterr().err.split())
    assert "my ViT looks at 96 px, not at its own 224: its position embeddings are resampled as timm does" in said
