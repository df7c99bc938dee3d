"""The weights in the wheel: the catalog's bytes, loaded offline, giving the features they gave when bundled."""

from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import load_file

import disco_zoo  # noqa: F401  registers the students
from disco_zoo.core.files import sha256_of
from disco_zoo.weights.bundled import BUNDLED_FOLDER, bundled_path
from disco_zoo.weights.golden import compare_with_golden, golden_input
from disco_zoo.zoo.catalog import Checkpoint, load_catalog

BUNDLED = [row for row in load_catalog().checkpoints.values() if row.weights.source == "bundled"]
each_bundled = pytest.mark.parametrize("row", BUNDLED, ids=lambda row: row.name)


def golden_of(row: Checkpoint) -> dict[str, torch.Tensor]:
    return load_file(bundled_path(f"{row.name}.golden.safetensors"))


def test_the_bundled_files_are_the_catalogs_and_no_others() -> None:
    files = {f"{row.name}{end}" for row in BUNDLED for end in (".safetensors", ".golden.safetensors")}
    assert {path.name for path in BUNDLED_FOLDER.iterdir()} == files
    for row in BUNDLED:
        assert sha256_of(bundled_path(row.weights.file or "")) == row.weights.sha256
        assert sha256_of(bundled_path(f"{row.name}.golden.safetensors")) == row.weights.golden_sha256


def test_the_bare_name_stands_for_bundled_weights() -> None:
    assert load_catalog().resolve("effb0") in BUNDLED


@each_bundled
def test_weights_give_their_golden_features(row: Checkpoint) -> None:
    """Computed on the day the weights were bundled (torch 2.14.1, a CPU), and the input is the formula's still."""
    model = timm.create_model(row.name, pretrained=True).eval()
    assert compare_with_golden(bundled_path(f"{row.name}.golden.safetensors"), model).ok
    torch.testing.assert_close(golden_of(row)["input"], golden_input(golden_of(row)["input"].shape[-1]))


@each_bundled
def test_slightly_other_weights_do_not(row: Checkpoint) -> None:
    model = timm.create_model(row.name, pretrained=True).eval()
    with torch.no_grad():
        next(module for module in reversed([*model.modules()]) if isinstance(module, torch.nn.Conv2d)).weight.mul_(1.01)
    assert not compare_with_golden(bundled_path(f"{row.name}.golden.safetensors"), model).ok
