"""The weights in the wheel: the catalog's bytes, loaded offline, giving the features they gave when bundled."""

from __future__ import annotations

import timm
import torch
from safetensors.torch import load_file

import disco_zoo  # noqa: F401  registers the students
from disco_zoo.catalog import load_catalog
from disco_zoo.checksum import sha256_of
from disco_zoo.golden import compare_with_golden, golden_input
from disco_zoo.weights import bundled_path

GOLDEN = bundled_path("disco_effb0.disco_lite0_cifar10.golden.safetensors")


def test_the_bundled_files_are_the_catalogs() -> None:
    row = load_catalog().resolve("effb0")
    assert row.name == "disco_effb0.disco_lite0_cifar10"
    assert sha256_of(bundled_path(row.weights.file or "")) == row.weights.sha256
    assert sha256_of(GOLDEN) == row.weights.golden_sha256


def test_default_weights_give_their_golden_features() -> None:
    """Computed on the day the weights were bundled (torch 2.14.1, a CPU), and the input is the formula's still."""
    model = timm.create_model("disco_effb0", pretrained=True).eval()
    assert compare_with_golden(GOLDEN, model).ok
    torch.testing.assert_close(load_file(GOLDEN)["input"], golden_input(64))


def test_slightly_other_weights_do_not() -> None:
    model = timm.create_model("disco_effb0", pretrained=True).eval()
    with torch.no_grad():
        model.blocks[5][0].conv_dw.weight.mul_(1.01)
    assert not compare_with_golden(GOLDEN, model).ok
