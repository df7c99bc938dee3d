"""Heads of the field's checkpoints: what they compute, and what is no head."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from official_nets import containers
from official_nets.cases import net, simclr_head
from official_nets.containers import mlp, write
from official_nets.subjects import images, official
from torch import Tensor
from torch.nn import functional as F

from disco_zoo.errors import BadCheckpoint
from disco_zoo.weights.convert import head_module, head_widths, read_checkpoint

State = dict[str, Tensor]


@pytest.fixture(autouse=True)
def emptied(tmp_path: Path) -> Iterator[None]:
    """pytest keeps the files of several runs, and these are large."""
    yield
    shutil.rmtree(tmp_path)


def normalised(state: State, name: str, x: Tensor) -> Tensor:
    """BatchNorm by its stored statistics, in double precision."""
    mean, var = state[f"{name}.running_mean"].double(), state[f"{name}.running_var"].double()
    bias = state.get(f"{name}.bias", torch.zeros(len(mean))).double()
    return (x - mean) / (var + 1e-5).sqrt() * state[f"{name}.weight"].double() + bias


def linear(state: State, name: str, x: Tensor) -> Tensor:
    prefix = f"{name}." if name else ""
    bias = state.get(f"{prefix}bias", torch.zeros(()))
    return x @ state[f"{prefix}weight"].double().T + bias.double()


def of_mlp(state: State, x: Tensor) -> Tensor:
    return linear(state, "2", linear(state, "0", x).clamp(min=0))


def of_mlp_with_norm(state: State, x: Tensor) -> Tensor:
    return linear(state, "3", normalised(state, "1", linear(state, "0", x)).clamp(min=0))


def of_simclr(state: State, x: Tensor) -> Tensor:
    hidden = normalised(state, "bn1", linear(state, "fc1", x)).clamp(min=0)
    return normalised(state, "bn2", linear(state, "fc2", hidden))


def of_linear(state: State, x: Tensor) -> Tensor:
    return linear(state, "", x)


LINEAR = {"weight": torch.randn(8, 20), "bias": torch.randn(8)}
WITHOUT_BIAS = {key: value for key, value in simclr_head().items() if key != "bn2.bias"}
HEADS = {
    "MoCo-v2": (mlp(20, 30), of_mlp, (20, 128)),
    "MoCo-v1": (LINEAR, of_linear, (20, 8)),
    "SwAV": (mlp(20, 30, norm=True), of_mlp_with_norm, (20, 128)),
    "SimCLR": (simclr_head(), of_simclr, (2048, 128)),
    "SimCLR without its last bias": (WITHOUT_BIAS, of_simclr, (2048, 128)),
}


@pytest.mark.parametrize("name", HEADS)
def test_head_computes_what_its_tensors_say(name: str) -> None:
    state, by_hand, widths = HEADS[name]
    assert head_widths(state) == widths
    features = torch.randn(5, widths[0], generator=torch.Generator().manual_seed(1))
    head = head_module(state).eval()
    with torch.no_grad():
        found = head(features.clone())
    wanted = by_hand(state, features.double())
    assert found.shape == (5, widths[1])
    assert torch.allclose(found.double(), wanted, atol=2e-6 * float(wanted.abs().max()))


@pytest.mark.parametrize("name", HEADS)
def test_head_of_an_old_file_without_step_counters(name: str) -> None:
    state, _, _ = HEADS[name]
    old = {key: value for key, value in state.items() if "num_batches" not in key}
    built = head_module(old).state_dict()
    assert {key for key in built if "num_batches" not in key} >= set(old)
    assert all(int(value) == 0 for key, value in built.items() if "num_batches" in key)


def test_half_precision_heads_are_widened() -> None:
    head = head_module({key: value.half() for key, value in mlp(20, 30).items()})
    assert all(value.dtype is torch.float32 for value in head.state_dict().values())


def test_swavs_embedding_is_the_one_of_its_own_network(tmp_path: Path) -> None:
    converted = read_checkpoint(write(tmp_path / "swav.pth.tar", containers.swav_teacher(net("swav"))))
    subject = official("swav")
    with torch.no_grad():
        wanted = subject.features.__self__(images(96))  # type: ignore[attr-defined]
        found = F.normalize(head_module(converted.head).eval()(subject.features(images(96))))
    assert float((found - wanted).abs().max()) < 1e-6
    assert converted.dropped == ("module.prototypes. (1 tensor)",)


def broken(state: State, **changes: Tensor | None) -> State:
    changed = {**state, **{key.replace("_", ".", 1): value for key, value in changes.items()}}
    return {key: value for key, value in changed.items() if value is not None}


@pytest.mark.parametrize(
    ("head", "part"),
    [
        ({}, "it has no tensors"),
        (broken(mlp(20, 30), **{"2_bias": None}), "it has 0.bias, 0.weight, 2.weight"),
        (broken(mlp(20, 30), **{"4_weight": torch.zeros(2, 2)}), "4.weight"),
        (broken(mlp(20, 30, norm=True), **{"1_running_mean": None}), "is none that is known"),
        (broken(mlp(20, 30), **{"2_weight": torch.zeros(128, 7)}), "do not fit each other"),
        (broken(mlp(20, 30), **{"0_weight": torch.zeros(30)}), "do not fit each other"),
        (broken(mlp(20, 30), **{"0_bias": torch.zeros(4)}), "0.bias (4,)"),
        ({"weight": torch.zeros(3, 3, 3), "bias": torch.zeros(3)}, "weight (3, 3, 3)"),
    ],
)
def test_half_a_head_is_refused_with_what_it_has(head: State, part: str) -> None:
    with pytest.raises(BadCheckpoint) as error:
        head_module(head)
    assert part in str(error.value)
