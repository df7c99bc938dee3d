"""Files that are no checkpoint, damaged, or hostile: one line each, and nothing of them is executed."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from official_nets.containers import training_file, write
from safetensors.torch import save_file
from tiny import moco_state
from torch import Tensor

from disco_zoo.errors import BadCheckpoint
from disco_zoo.weights.convert import read_checkpoint
from disco_zoo.weights.convert.reading import read_container

State = dict[str, Tensor]


@pytest.fixture(autouse=True)
def emptied(tmp_path: Path) -> Iterator[None]:
    """pytest keeps the files of several runs, and these are large."""
    yield
    shutil.rmtree(tmp_path)


@pytest.fixture(scope="module")
def state() -> State:
    """The encoder alone: enough for a file, and quick to write."""
    return {key: value for key, value in moco_state().items() if "encoder_q" in key}


def refused(path: Path) -> str:
    with pytest.raises(BadCheckpoint) as error:
        read_checkpoint(path)
    message = str(error.value)
    assert message.isprintable()  # one line
    return message


class MakesFolder:
    """Unpickled by pickle itself, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.folder,)


class Evaluates(MakesFolder):
    def __reduce__(self) -> Any:
        return eval, (f"__import__('os').mkdir({self.folder!r})",)


@pytest.mark.parametrize("kind", [MakesFolder, Evaluates])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_hostile_pickle_is_refused_by_what_it_needs_and_not_run(
    kind: type[MakesFolder], legacy: bool, tmp_path: Path, state: State
) -> None:
    payload = kind(tmp_path / "made")
    path = write(tmp_path / "file.pth.tar", training_file(state, extra=payload), legacy=legacy)
    needs = "eval" if kind is Evaluates else "posix.mkdir"
    assert f"file.pth.tar needs {needs} to be loaded, which could run code: refused" in refused(path)
    assert not (tmp_path / "made").exists()
    torch.load(path, weights_only=False)  # the payload is alive: it does make the folder where it is run
    assert (tmp_path / "made").exists()


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_hostile_pickle_without_torchs_container_is_refused(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    path.write_bytes(pickle.dumps(MakesFolder(tmp_path / "made"), protocol=protocol))
    assert "refused" in refused(path)
    assert not (tmp_path / "made").exists()


def test_a_hostile_option_of_compress_is_refused(tmp_path: Path, state: State) -> None:
    """`argparse.Namespace` is allowed; what it holds is not."""
    import argparse

    options = argparse.Namespace(arch="resnet18", trick=MakesFolder(tmp_path / "made"))
    model = {key.removeprefix("module.encoder_q."): value for key, value in state.items()}
    path = write(tmp_path / "file.pth", {"opt": options, "model": {f"module.{k}": v for k, v in model.items()}})
    assert "needs posix.mkdir to be loaded" in refused(path)
    assert not (tmp_path / "made").exists()


def test_other_classes_are_refused_by_their_name(tmp_path: Path, state: State) -> None:
    path = write(tmp_path / "file.pth", training_file(state, extra=Path("x")))
    assert "needs pathlib" in refused(path)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.99])
def test_a_truncated_file_is_refused(legacy: bool, share: float, tmp_path: Path, state: State) -> None:
    content = write(tmp_path / "whole.pth", training_file(state), legacy=legacy).read_bytes()
    path = tmp_path / "file.pth.tar"
    path.write_bytes(content[: int(share * len(content))])
    assert refused(path) in (
        "file.pth.tar is truncated or no checkpoint file. Download it again",
        "file.pth.tar is empty. Download it again",
    )


@pytest.mark.parametrize("share", [0.0001, 0.3, 0.99])
def test_truncated_safetensors_are_refused(share: float, tmp_path: Path, state: State) -> None:
    save_file(state, tmp_path / "whole.safetensors")
    content = (tmp_path / "whole.safetensors").read_bytes()
    path = tmp_path / "file.safetensors"
    path.write_bytes(content[: int(share * len(content))])
    assert "file.safetensors is" in refused(path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ""])
@pytest.mark.parametrize("beginning", [b"\x20\x3c", b"<\x03", b"\x80\x02", b"\x80\x7d"])
def test_safetensors_are_known_whatever_their_headers_length_begins_with(
    beginning: bytes, suffix: str, tmp_path: Path
) -> None:
    length = int.from_bytes(beginning, "little")
    described = json.dumps({"weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    path = tmp_path / f"file{suffix}"
    path.write_bytes(header(length, described.ljust(length)) + struct.pack("<2f", 1.0, 2.0))
    assert path.read_bytes().startswith(beginning)
    assert read_container(path)["weight"].tolist() == [1.0, 2.0]


def test_truncated_safetensors_are_not_called_a_web_page(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(header(0x3C20, b"{}".ljust(5000)))
    assert "announces a header of 15,392 bytes in a file of 5,008" in refused(path)


def header(claimed: int, text: bytes = b"{}") -> bytes:
    return struct.pack("<Q", claimed) + text


def described(**entry: Any) -> bytes:
    text = json.dumps({"conv1.weight": entry}).encode()
    return header(len(text), text)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (header(2**31), "announces a header of 2,147,483,648 bytes in a file of 10"),
        (header(2**63), "announces a header of 9,223,372,036,854,775,808 bytes"),
        (header(2**31)[:8], "announces a header of 2,147,483,648 bytes in a file of 8"),
        (b"\x10\x00", "in a file of 2"),
        (header(2), "has no 'state_dict' of tensors"),
        (header(7, b"{broken"), "is truncated or no checkpoint file"),
        (described(dtype="F32", shape=[2**40], data_offsets=[0, 2**42]), "is truncated or no checkpoint file"),
        (described(dtype="F32", shape=[4], data_offsets=[0, 4]), "is truncated or no checkpoint file"),
        (described(dtype="F7", shape=[0], data_offsets=[0, 0]), "is truncated or no checkpoint file"),
    ],
)
def test_safetensors_whose_header_lies_are_refused(content: bytes, part: str, tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    path.write_bytes(content)
    assert part in refused(path)


def test_a_header_of_two_gigabytes_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor if the file is as large as it says (a hole, which takes no space)."""
    path = tmp_path / "file.safetensors"
    with path.open("wb") as stream:
        stream.write(header(2**31))
        stream.truncate(2**31 + 100)
    monkeypatch.setattr("disco_zoo.weights.convert.reading.load_file", lambda path: pytest.fail("the file was read"))
    assert "announces a header of 2,147,483,648 bytes in a file of 2,147,483,748" in refused(path)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"<html>404 not found</html>", "is a web page, not a checkpoint"),
        (b"\n  <!DOCTYPE html>\n<html>", "is a web page, not a checkpoint"),
        (b"", "is empty"),
        (b"hello world", "is truncated or no checkpoint file"),
        (bytes(100), "is truncated or no checkpoint file"),
        (b"\x80\x02}q\x00.", "is truncated or no checkpoint file"),
        (b"\x80", "is truncated or no checkpoint file"),
        (b"\x80\x02" + bytes(range(256)), "is truncated or no checkpoint file"),
        (b"PK\x03\x04", "is truncated or no checkpoint file"),
    ],
)
def test_another_kind_of_file_is_not_called_dangerous(content: bytes, part: str, tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    path.write_bytes(content)
    message = refused(path)
    assert part in message
    assert "refused" not in message


def make_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")


def make_tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.add(__file__, arcname="file.py")


def make_torchscript(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for member in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"model/{member}", "x")


def make_compressed(path: Path) -> None:
    """A member of 50 MB that takes 50 kB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(50_000_000))


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (make_zip, "is a zip archive, but not one of PyTorch"),
        (make_tar, "is a tar archive, not a checkpoint. Unpack it"),
        (make_torchscript, "is a TorchScript program, which runs code: refused"),
        (make_compressed, "has compressed members, which PyTorch does not write: refused"),
        (os.mkfifo, "is no regular file"),  # reading it would wait for ever
    ],
)
def test_other_containers_are_refused(make: Callable[[Path], None], part: str, tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    make(path)
    assert part in refused(path)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_whatever_bytes_are_damaged_the_answer_is_one_line(kind: str, tmp_path: Path) -> None:
    tensors = {"conv1.weight": torch.zeros(4), "layer1.0.bn1.num_batches_tracked": torch.tensor(1)}
    path = tmp_path / "file"
    if kind == "safetensors":
        save_file(tensors, path)
    else:
        write(path, training_file(tensors), legacy=kind == "legacy")
    whole, numbers = path.read_bytes(), random.Random(0)
    for _ in range(200):
        content = bytearray(whole)
        for _ in range(numbers.choice([1, 3, 30])):
            content[numbers.randrange(len(content))] = numbers.randrange(256)
        path.write_bytes(content)
        assert len(refused(path)) < 1500


@pytest.mark.parametrize("name", ["gone.pth.tar", "a\nb\x1b[31m.pth", "nul\0.pth", "x" * 300])
def test_a_missing_file_is_said_on_one_line(name: str, tmp_path: Path) -> None:
    message = refused(tmp_path / name)
    assert "does not exist" in message or "cannot be read" in message


def test_a_file_with_an_odd_name_is_read_and_shown_on_one_line(tmp_path: Path, state: State) -> None:
    path = write(tmp_path / "a\n\x1b[31mb ü 模型.pth", training_file(state))
    assert read_checkpoint(path).network == "resnet18"
    path.write_bytes(b"hello")
    assert r"\n\x1b[31mb" in refused(path)


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.pth"
    path.write_bytes(b"x")

    def denied(*args: Any, **options: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)  # tests may run as root, whom modes do not bind
    assert refused(path).endswith("file.pth cannot be read: Permission denied")
