"""The weights in the wheel: the catalog's bytes, loaded offline, giving the features they gave when bundled."""

from __future__ import annotations

import timm
import torch

import disco_zoo  # noqa: F401  registers the students
from disco_zoo.catalog import load_catalog
from disco_zoo.evaluate.knn import knn_top1
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


def test_default_weights_tell_clothes_apart_far_better_than_random_weights() -> None:
    """Data they were not trained on, so a mix-up of tensors or of the input range would show."""
    from disco_zoo.datasets import open_source
    from disco_zoo.evaluate.features import extract_features

    train, test = open_source("sample", "train"), open_source("sample", "test")
    top1 = {}
    for pretrained in (True, False):
        torch.manual_seed(0)
        model = timm.create_model("disco_effb0", pretrained=pretrained)
        bank, queries = (
            extract_features(
                model, source, image_size=64, resize_size=64, mean=(0.5,) * 3, std=(0.5,) * 3, indices=range(400)
            )
            for source in (train, test)
        )
        assert bank.labels is not None
        assert queries.labels is not None
        top1[pretrained] = knn_top1(bank.features, bank.labels, queries.features, queries.labels, ks=(5,))[5]
    assert top1[True] > top1[False] + 10
    assert top1[True] > 65
