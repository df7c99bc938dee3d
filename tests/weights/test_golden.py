"""Golden features prove the numbers: the same network passes, a slightly wrong one fails."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import TinyNet

from disco_zoo.errors import Damaged
from disco_zoo.weights.golden import TOLERANCE, compare_with_golden, features_of, golden_input, write_golden


def test_the_input_is_the_formula() -> None:
    images = golden_input(8)
    assert images.shape == (1, 3, 8, 8)
    assert images.dtype == torch.float32
    for channel, row, column in ((0, 0, 0), (1, 3, 5), (2, 7, 1)):
        y, x = row / 8, column / 8
        wave = math.sin(2 * math.pi * ((channel + 1) * x + (3 - channel) * y))
        wave += math.cos(2 * math.pi * (5 * x * y + channel / 3))
        assert float(images[0, channel, row, column]) == pytest.approx(wave, abs=1e-6)


def test_the_same_network_passes_and_stays_in_its_mode(tmp_path: Path) -> None:
    model = TinyNet().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    write_golden(tmp_path / "g.safetensors", model, 16)
    difference = compare_with_golden(tmp_path / "g.safetensors", model)
    assert difference.ok
    assert difference.largest == 0
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    stored = load_file(tmp_path / "g.safetensors")
    assert torch.equal(stored["input"], golden_input(16))
    assert torch.equal(stored["features"], features_of(model, golden_input(16)))


@pytest.mark.parametrize(("factor", "ok"), [(1 + TOLERANCE / 2, True), (1 + 2 * TOLERANCE, False), (math.nan, False)])
def test_the_tolerance_is_relative_to_the_largest_feature(tmp_path: Path, factor: float, ok: bool) -> None:
    model = TinyNet()
    write_golden(tmp_path / "g.safetensors", model, 16)
    with torch.no_grad():
        model.bn.weight.mul_(factor)  # features are linear in it: bias is zero, ReLU keeps the scale
    assert compare_with_golden(tmp_path / "g.safetensors", model).ok is ok


@pytest.mark.parametrize("fault", ["missing", "garbage", "no features", "another width"])
def test_a_golden_file_that_holds_nothing_usable_is_damaged(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "g.safetensors"
    if fault == "garbage":
        path.write_bytes(b"no safetensors at all")
    elif fault == "no features":
        save_file({"input": torch.zeros(1, 3, 16, 16)}, path)
    elif fault == "another width":
        save_file({"input": torch.zeros(1, 3, 16, 16), "features": torch.zeros(1, 5)}, path)
    with pytest.raises(Damaged, match=r"g.safetensors holds no golden features"):
        compare_with_golden(path, TinyNet())
