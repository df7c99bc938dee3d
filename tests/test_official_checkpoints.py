"""MoCo's files: recognised by keys and shapes, read without running code, and refused in words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from tiny import moco_state, write_moco_checkpoint
from torch import Tensor

from disco_zoo.errors import BadTeacher
from disco_zoo.official_checkpoints import load_moco_checkpoint

Q = "module.encoder_q."


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return moco_state()


def test_query_encoder_head_and_queue_are_taken(tmp_path: Path, state: dict[str, Tensor]) -> None:
    official = load_moco_checkpoint(write_moco_checkpoint(tmp_path / "moco.pth.tar", state))
    assert official.architecture == "resnet18"
    assert official.embed_dim == 128
    for key, tensor in official.backbone.items():
        assert torch.equal(tensor, state[f"{Q}{key}"])
        assert not key.startswith("fc.")
    assert len(official.backbone) == 120  # ResNet-18 without its classifier: 20 convolutions, 20 BatchNorms of 5
    features = torch.randn(3, 512)
    hidden = torch.clamp(features @ state[f"{Q}fc.0.weight"].T + state[f"{Q}fc.0.bias"], min=0)
    expected = hidden @ state[f"{Q}fc.2.weight"].T + state[f"{Q}fc.2.bias"]
    assert torch.allclose(official.head(features), expected, atol=1e-5)
    assert official.queue is not None
    assert torch.equal(official.queue, state["module.queue"].T)  # columns in the file, rows here


def test_a_file_without_queue_has_none(tmp_path: Path, state: dict[str, Tensor]) -> None:
    without = {key: tensor for key, tensor in state.items() if "queue" not in key}
    assert load_moco_checkpoint(write_moco_checkpoint(tmp_path / "moco.pth", without)).queue is None


@pytest.mark.parametrize(
    ("blocks", "bottleneck", "name"),
    [
        ((2, 2, 2, 2), False, "resnet18"),
        ((3, 4, 6, 3), False, "resnet34"),
        ((3, 4, 6, 3), True, "resnet50"),
        ((3, 4, 23, 3), True, "resnet101"),
        ((3, 8, 36, 3), True, "resnet152"),
    ],
)
def test_architecture_is_told_from_keys_whatever_the_file_says(
    tmp_path: Path, state: dict[str, Tensor], blocks: tuple[int, ...], bottleneck: bool, name: str
) -> None:
    convolution = "conv3" if bottleneck else "conv2"
    keys = [f"layer{s + 1}.{b}.{convolution}.weight" for s, count in enumerate(blocks) for b in range(count)]
    tensors = {f"{Q}{key}": torch.zeros(1) for key in keys}
    tensors |= {key: tensor for key, tensor in state.items() if key.startswith(f"{Q}fc.")}
    path = write_moco_checkpoint(tmp_path / "moco.pth.tar", tensors, note="arch says resnet18")
    assert load_moco_checkpoint(path).architecture == name


class Malicious:
    def __reduce__(self):
        return os.mkdir, (self.folder,)

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)


def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = write_moco_checkpoint(tmp_path / "moco.pth.tar", state, extra=Malicious(tmp_path / "made"))
    with pytest.raises(BadTeacher, match="refused, it could run code"):
        load_moco_checkpoint(path)
    assert not (tmp_path / "made").exists()


def test_a_missing_file_says_how_to_name_it(tmp_path: Path) -> None:
    with pytest.raises(BadTeacher, match=r"does not exist. Give the teacher's file with --set teacher.source=PATH"):
        load_moco_checkpoint(tmp_path / "gone.pth.tar")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_file_is_refused(tmp_path: Path, state: dict[str, Tensor], share: float) -> None:
    content = write_moco_checkpoint(tmp_path / "whole.pth", state).read_bytes()
    path = tmp_path / "moco.pth.tar"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(BadTeacher, match=r"moco.pth.tar is truncated or no PyTorch file. Download it again"):
        load_moco_checkpoint(path)


@pytest.mark.parametrize("content", [b"<html>404 not found</html>", b"hello world", bytes(100)])
def test_another_kind_of_file_is_not_called_dangerous(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "moco.pth"
    path.write_bytes(content)
    with pytest.raises(BadTeacher, match="is truncated or no PyTorch file"):
        load_moco_checkpoint(path)


def refused(tmp_path: Path, state: dict) -> str:
    with pytest.raises(BadTeacher) as error:
        load_moco_checkpoint(write_moco_checkpoint(tmp_path / "moco.pth.tar", state))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_another_layout_is_refused_with_what_was_found(tmp_path: Path, state: dict[str, Tensor]) -> None:
    renamed = {key.removeprefix("module."): tensor for key, tensor in state.items()}
    assert "no key starts with 'module.encoder_q.' (found encoder_k, encoder_q" in refused(tmp_path, renamed)
    assert "no key starts with" in refused(tmp_path, {})


def test_a_state_dict_that_holds_no_tensors_is_refused(tmp_path: Path) -> None:
    assert "has no 'state_dict' of tensors" in refused(tmp_path, {f"{Q}fc.0.weight": 3})
    path = tmp_path / "list.pth"
    torch.save([1, 2], path)
    with pytest.raises(BadTeacher, match="has no 'state_dict'"):
        load_moco_checkpoint(path)


def test_half_a_head_is_refused(tmp_path: Path, state: dict[str, Tensor]) -> None:
    without = {key: tensor for key, tensor in state.items() if key != f"{Q}fc.2.bias"}
    assert "the head is not MoCo-v2's fc.0 and fc.2 (found ['0.bias', '0.weight', '2.weight'])" in refused(
        tmp_path, without
    )
    assert "do not fit each other" in refused(tmp_path, {**state, f"{Q}fc.2.weight": torch.zeros(128, 7)})


def test_an_unknown_depth_is_refused(tmp_path: Path, state: dict[str, Tensor]) -> None:
    shallow = {key: tensor for key, tensor in state.items() if "layer4.1" not in key}
    assert "no ResNet of the papers has stages of (2, 2, 2, 1) blocks" in refused(tmp_path, shallow)
