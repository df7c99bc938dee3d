"""The weights in the wheel: the catalog's bytes, loaded offline, giving the features they gave when bundled."""

from __future__ import annotations

import timm
import torch

import disco_zoo  # noqa: F401  registers the students
from disco_zoo.catalog import load_catalog
from disco_zoo.weights import bundled_path, sha256_of

# timm.create_model("disco_effb0", pretrained=True) on the ramp below, torch 2.14.1 on a CPU, the day it was bundled.
GOLDEN_FEATURES = (-0.0536177, -0.0759154, -0.0809612, -0.0405009, -0.1030684, -0.1276235)
GOLDEN_NORM = 2.8257186


def ramp() -> torch.Tensor:
    return torch.linspace(-1, 1, 3 * 64 * 64).view(1, 3, 64, 64)


def test_the_bundled_file_is_the_catalogs() -> None:
    row = load_catalog().resolve("effb0")
    assert row.name == "disco_effb0.disco_lite0_cifar10"
    assert sha256_of(bundled_path(row.weights.file or "")) == row.weights.sha256


def test_default_weights_give_their_golden_features() -> None:
    model = timm.create_model("disco_effb0", pretrained=True).eval()
    with torch.no_grad():
        features = model(ramp())
    torch.testing.assert_close(features[0, :6], torch.tensor(GOLDEN_FEATURES), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(features.norm(), torch.tensor(GOLDEN_NORM), rtol=1e-3, atol=0)
