"""Values in checkpoints (finite, of a type that networks have), and run folders as a source of weights."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from official_nets.cases import net
from official_nets.containers import training_file, write
from tiny import make_run_folder, moco_state
from torch import Tensor

from disco_zoo.errors import BadCheckpoint, WrongNetwork
from disco_zoo.weights.convert import read_checkpoint

State = dict[str, Tensor]
Q = "module.encoder_q."


@pytest.fixture(autouse=True)
def emptied(tmp_path: Path) -> Iterator[None]:
    """pytest keeps the files of several runs, and these are large."""
    yield
    shutil.rmtree(tmp_path)


@pytest.fixture(scope="module")
def state() -> State:
    """Without the moving average, which doubles the file."""
    return {key: value for key, value in moco_state().items() if "encoder_k" not in key}


def refused(tmp_path: Path, container: Any) -> str:
    with pytest.raises(BadCheckpoint) as error:
        read_checkpoint(write(tmp_path / "file.pth.tar", container))
    assert str(error.value).isprintable()  # one line
    return str(error.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("key", ["layer1.0.conv1.weight", "bn1.running_var", "fc.0.weight"])
def test_values_that_are_not_finite_are_named(value: float, key: str, tmp_path: Path, state: State) -> None:
    damaged = dict(state)
    damaged[f"{Q}{key}"] = state[f"{Q}{key}"].clone()
    damaged[f"{Q}{key}"].view(-1)[3] = value
    message = refused(tmp_path, training_file(damaged))
    assert f"holds NaN or infinite values in (1) {key.removeprefix('fc.')}" in message


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("bn1.weight", torch.ones(64, dtype=torch.float64), "bn1.weight (float64)"),
        ("bn1.weight", torch.ones(64, dtype=torch.int32), "bn1.weight (int32)"),
        ("bn1.weight", torch.ones(64, dtype=torch.complex64), "bn1.weight (complex64)"),
        ("bn1.weight", torch.ones(64, dtype=torch.bool), "bn1.weight (bool)"),
        ("bn1.num_batches_tracked", torch.tensor(3.0), "bn1.num_batches_tracked (float32)"),
        ("bn1.weight", torch.ones(64).to_sparse(), "bn1.weight (not a plain array)"),
        ("bn1.weight", torch.ones(1).expand(64), "bn1.weight (not a plain array)"),
    ],
)
def test_tensors_of_another_type_are_named(key: str, value: Tensor, part: str, tmp_path: Path, state: State) -> None:
    assert f"has tensors of a type that no network here has: (1) {part}" in refused(
        tmp_path, training_file(state | {f"{Q}{key}": value})
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_kept_as_it_is(dtype: torch.dtype, tmp_path: Path) -> None:
    half = {key: value.to(dtype) if value.is_floating_point() else value for key, value in net("resnet18").items()}
    converted = read_checkpoint(write(tmp_path / "half.pth", half))
    assert all(torch.equal(value, half[key]) for key, value in converted.backbone.items())
    assert converted.backbone["conv1.weight"].dtype is dtype


# --- run folders -----------------------------------------------------------------------------------------------------


def test_a_run_folder_says_its_network(tmp_path: Path) -> None:
    folder = make_run_folder(tmp_path / "mine")
    converted = read_checkpoint(folder, "resnet18")
    assert (converted.layout, converted.network, converted.file) == ("run", "resnet18", "student.safetensors")
    with pytest.raises(WrongNetwork, match="mine holds weights of resnet18, not of resnet34"):
        read_checkpoint(folder, "resnet34")


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"sha256": "0" * 64}, "is not the file its run.json describes (sha256 differs)"),
        ({"architecture": "resnet34"}, "does not fit resnet34: missing (80)"),
        ({"architecture": "resnet19"}, "of the network resnet19, which timm does not have"),
        ({"architecture": ["x"]}, "of the network ['x'], which timm does not have"),
    ],
)
def test_a_run_folder_that_contradicts_itself_is_refused(changes: dict[str, Any], part: str, tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint) as error:
        read_checkpoint(make_run_folder(tmp_path / "mine", **changes))
    assert part in str(error.value)


def test_a_folder_without_a_finished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match=r"is no finished run folder: it needs run.json and student.safetensors"):
        read_checkpoint(tmp_path)
