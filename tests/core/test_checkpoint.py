"""Checkpoints: whole or not at all, read without running code, and failures in words."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest
import timm
import torch
from forked import run
from safetensors import safe_open
from torch import nn

from disco_zoo.core.checkpoint import (
    export_backbone,
    load_checkpoint,
    random_state,
    restore_random_state,
    save_checkpoint,
    write_atomically,
)
from disco_zoo.errors import BadRunFolder

NO_SPACE = "no space left. Make room or fix it, then repeat the command with --resume"


def assert_old_file_is_kept(path: Path) -> None:
    assert path.read_text() == "old"
    assert os.listdir(path.parent) == [path.name]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("old")
    return path


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    state = {"tensor": torch.randn(3, 4), "step": 7, "names": {1: "a"}, "none": None, "rate": 0.1}
    save_checkpoint(tmp_path / "checkpoint.pt", state)
    loaded = load_checkpoint(tmp_path / "checkpoint.pt")
    assert torch.equal(loaded.pop("tensor"), state.pop("tensor"))
    assert loaded == state
    assert os.listdir(tmp_path) == ["checkpoint.pt"]


def test_a_writer_that_fails_midway_leaves_the_old_file(old: Path) -> None:
    def write(partial: Path) -> None:
        partial.write_text("half of the n")
        raise KeyError("midway")

    with pytest.raises(KeyError, match="midway"):
        write_atomically(old, write)
    assert_old_file_is_kept(old)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("a programming error")])
def test_errors_that_are_no_failed_write_are_passed_on(old: Path, error: BaseException) -> None:
    def write(partial: Path) -> None:
        partial.write_text("half")
        raise error

    with pytest.raises(type(error)):
        write_atomically(old, write)
    assert_old_file_is_kept(old)


def test_readers_never_see_half_a_file(old: Path) -> None:
    def write(partial: Path) -> None:
        partial.write_text("new")
        assert old.read_text() == "old"

    write_atomically(old, write)
    assert old.read_text() == "new"


@pytest.mark.parametrize(
    ("code", "reason"),
    [(errno.ENOSPC, NO_SPACE), (errno.EDQUOT, NO_SPACE), (errno.EACCES, "Permission denied. Make room or fix it")],
)
def test_a_refused_write_says_why_and_what_to_do(
    old: Path, monkeypatch: pytest.MonkeyPatch, code: int, reason: str
) -> None:
    def refuse(state: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(torch, "save", refuse)
    with pytest.raises(BadRunFolder) as error:
        save_checkpoint(old, {})
    assert str(error.value).startswith(f"cannot write {old}: {reason}")
    assert_old_file_is_kept(old)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full, a disk without room")
def test_torchs_own_error_on_a_full_disk_is_understood(old: Path) -> None:
    """torch reports it as a RuntimeError of its zip writer, without an errno."""

    def write(partial: Path) -> None:
        partial.symlink_to("/dev/full")
        torch.save({"tensor": torch.zeros(100_000)}, partial)

    with pytest.raises(BadRunFolder, match=NO_SPACE):
        write_atomically(old, write)
    assert_old_file_is_kept(old)


LIMITED_EXPORT = """
import resource
import signal
import sys
from pathlib import Path
from torch import nn
from disco_zoo.core.checkpoint import export_backbone
from disco_zoo.errors import BadRunFolder
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    export_backbone(nn.Linear(300, 300), Path(sys.argv[1]), half=False, metadata={})
except BadRunFolder as error:
    print(error)
"""


def test_safetensors_own_error_on_a_failed_write_is_understood(old: Path) -> None:
    command = [sys.executable, "-c", LIMITED_EXPORT, str(old)]
    found = run(command)
    assert found.stdout.startswith(f"cannot write {old}: File too large. Make room or fix it")
    assert_old_file_is_kept(old)


def test_a_missing_checkpoint_says_how_to_begin(tmp_path: Path) -> None:
    with pytest.raises(BadRunFolder, match=r"nothing to resume: .* Repeat the command without --resume"):
        load_checkpoint(tmp_path / "checkpoint.pt")


@pytest.mark.parametrize("content", ["", "hello world", "<html>", "half"])
def test_a_damaged_checkpoint_is_refused_in_words(tmp_path: Path, content: str) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"tensor": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:2000] if content == "half" else content.encode())
    with pytest.raises(BadRunFolder, match=r"checkpoint.pt is damaged. Choose another --out"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.EIO, os.strerror(errno.EIO)), "Input/output error"),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES)), "Permission denied"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "too little memory"),
        (MemoryError(), "too little memory"),
    ],
)
def test_a_checkpoint_that_the_system_does_not_read_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, reason: str
) -> None:
    def refuse(path: Path, **options: object) -> None:
        raise error

    monkeypatch.setattr(torch, "load", refuse)
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(BadRunFolder) as caught:
        load_checkpoint(path)
    onward = "Fix it, then repeat the command, or choose another --out"
    assert str(caught.value) == f"{path} cannot be read: {reason}. {onward}"


class Malicious:
    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_a_checkpoint_that_runs_code_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"step": Malicious(tmp_path / "made")}, tmp_path / "checkpoint.pt")
    with pytest.raises(BadRunFolder, match="is damaged"):
        load_checkpoint(tmp_path / "checkpoint.pt")
    assert not (tmp_path / "made").exists()


def test_random_state_survives_a_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.rand(5)
    save_checkpoint(tmp_path / "checkpoint.pt", random_state())
    expected = torch.rand(5)
    torch.manual_seed(1)
    restore_random_state(load_checkpoint(tmp_path / "checkpoint.pt"))
    assert torch.equal(torch.rand(5), expected)


def test_exported_backbone_loads_into_timms_own_architecture(tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = timm.create_model("resnet18", num_classes=0)
    path = tmp_path / "student.safetensors"
    export_backbone(backbone, path, half=True, metadata={"recipe": "x"})
    loaded = timm.create_model(
        "resnet18", pretrained=True, num_classes=0, pretrained_cfg_overlay={"file": str(path), "num_classes": 0}
    )
    for key, tensor in backbone.state_dict().items():
        found = loaded.state_dict()[key]
        assert found.dtype == tensor.dtype
        assert torch.equal(found, tensor.half().to(tensor.dtype)), key
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"recipe": "x"}
        assert file.get_tensor("conv1.weight").dtype == torch.float16
        assert file.get_tensor("bn1.num_batches_tracked").dtype == torch.int64
    assert path.stat().st_mode & 0o777 == 0o644


def test_full_precision_export_is_exact_and_half_keeps_what_half_cannot_hold(tmp_path: Path) -> None:
    layer = nn.Linear(3, 2)
    with torch.no_grad():
        layer.bias.fill_(1e6)  # beyond fp16's 65,504
    for half in (False, True):
        export_backbone(layer, tmp_path / "x.safetensors", half=half, metadata={})
        with safe_open(tmp_path / "x.safetensors", "pt") as file:
            assert torch.equal(file.get_tensor("bias"), layer.bias)
            assert file.get_tensor("weight").dtype == (torch.float16 if half else torch.float32)
