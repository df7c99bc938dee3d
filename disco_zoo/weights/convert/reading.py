"""A checkpoint file, or a finished run folder, as plain values and tensors. Nothing in the file is executed.

Three containers, told apart by their bytes: safetensors, PyTorch's zip archive, and the pickles that PyTorch
wrote before 1.6. Both of PyTorch's are read by its restricted unpickler (`weights_only=True`), with nothing
allowed beyond its own list but `argparse.Namespace`, in which CompRess keeps its options.
"""

from __future__ import annotations

import argparse
import json
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from disco_zoo.core.claimed_dir import FACTS
from disco_zoo.core.files import read_fault, sha256_of
from disco_zoo.errors import BadCheckpoint, shown

# The limit of the safetensors library itself; a network of a thousand tensors needs about 100 kB.
MAX_HEADER_BYTES = 100_000_000
_PICKLE_PROTOCOL = 0x80


def read_container(path: Path) -> Any:
    """Read a checkpoint file.

    Returns:
        What the file holds, usually a dict; for safetensors the tensors by name.

    Raises:
        BadCheckpoint: missing, no checkpoint, damaged, or in need of more than tensors and plain values.
    """
    start = _first_bytes(path)
    name = shown(path.name)
    if _is_safetensors(start):  # first: its header's length can begin as any of the others do
        return _safetensors(path, start)
    if start.lstrip()[:1] == b"<":
        raise BadCheckpoint(f"{name} is a web page, not a checkpoint. Open its link in a browser and download it again")
    if start[257:262] == b"ustar":
        raise BadCheckpoint(f"{name} is a tar archive, not a checkpoint. Unpack it and give the file inside")
    if start[:4] == b"PK\x03\x04":
        _check_archive(path)
        return _unpickled(path, start)
    if start[:1] == bytes([_PICKLE_PROTOCOL]):
        return _unpickled(path, start)
    if start[8:9] == b"{" or path.suffix == ".safetensors":
        return _safetensors(path, start)
    raise BadCheckpoint(f"{name} {_DAMAGED}")


def _first_bytes(path: Path) -> bytes:
    try:
        if not path.exists():
            raise BadCheckpoint(f"{shown(str(path))} does not exist. Give the path of the checkpoint")
        if not path.is_file():  # a pipe would block for ever
            raise BadCheckpoint(f"{shown(str(path))} is no regular file. Give the path of the checkpoint")
        with path.open("rb") as stream:
            start = stream.read(512)
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise BadCheckpoint(f"{shown(str(path))} cannot be read: {reason}") from error
    if not start:
        raise BadCheckpoint(f"{shown(path.name)} is empty. Download it again")
    return start


def _is_safetensors(start: bytes) -> bool:
    """A length that a header may have, then the header. The length ends in zeros, which text and pickles do not."""
    return start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= MAX_HEADER_BYTES


def _check_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise _unreadable(path, error) from error
    inside = {member.filename.split("/", 1)[-1] for member in members}
    if "constants.pkl" in inside:
        raise BadCheckpoint(f"{shown(path.name)} is a TorchScript program, which runs code: refused. Save a state dict")
    if "data.pkl" not in inside:
        raise BadCheckpoint(f"{shown(path.name)} is a zip archive, but not one of PyTorch. Unpack it first")
    # PyTorch stores its members as they are; a compressed one can unpack to any size.
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise BadCheckpoint(f"{shown(path.name)} has compressed members, which PyTorch does not write: refused")


def _unpickled(path: Path, start: bytes) -> Any:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore")  # about pickle protocols; what cannot be read raises
            return torch.load(path, map_location="cpu", weights_only=True)
    # What the bytes of a damaged file happen to mean decides what the unpickler raises.
    except Exception as error:
        reason = str(error)
        if found := re.search(r"GLOBAL (\S+)", reason):  # torch's word for a class or function outside its list
            raise BadCheckpoint(
                f"{shown(path.name)} needs {shown(found[1])} to be loaded, which could run code: refused. "
                "Save its state dict alone, without other objects"
            ) from error
        # Protocols above 2 have instructions which the restricted reader does not know.
        if "Unsupported operand" in reason and start[0] == _PICKLE_PROTOCOL and start[1] > 2:
            raise BadCheckpoint(
                f"{shown(path.name)} is a pickle, but not written by torch.save: refused, it could run code"
            ) from error
        raise _unreadable(path, error) from error


def _safetensors(path: Path, start: bytes) -> dict[str, torch.Tensor]:
    size, header = path.stat().st_size, int.from_bytes(start[:8], "little")
    if len(start) < 8 or header > min(size - 8, MAX_HEADER_BYTES):
        raise BadCheckpoint(
            f"{shown(path.name)} is no valid safetensors file: it announces a header of {header:,} bytes in a file "
            f"of {size:,}. Download it again"
        )
    try:
        return load_file(path)
    # SafetensorError for what the header says; the others for number types that torch does not have.
    except (SafetensorError, OSError, ValueError, LookupError, AttributeError, RuntimeError, MemoryError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: BaseException) -> BadCheckpoint:
    return BadCheckpoint(f"{shown(path.name)} {read_fault(error, _DAMAGED)}")


_DAMAGED = "is truncated or no checkpoint file. Download it again"
WEIGHTS = "student.safetensors"
# What run.json must say of its student.
_NEEDED = {"model", "architecture", "sha256", "mean", "std", "image_size", "resize_size"}


def read_run_facts(folder: Path) -> dict[str, Any]:
    """The student's facts of `run.json`, after its sha256 is compared with the weights.

    Returns:
        At least model, architecture (a timm name), options (of `timm.create_model`), sha256, mean, std, and image_size
        and resize_size in pixels.

    Raises:
        BadCheckpoint: the folder is no finished run, or its weights are other ones.
    """
    weights, facts, name = folder / WEIGHTS, folder / FACTS, shown(str(folder))
    if not weights.is_file() or not facts.is_file():
        raise BadCheckpoint(f"{name} is no finished run folder: it needs {FACTS} and {WEIGHTS}")
    try:
        student: dict[str, Any] = json.loads(facts.read_text(encoding="utf-8"))["student"]
        missing = _NEEDED - set(student)
    except (ValueError, LookupError, TypeError, OSError) as error:
        raise BadCheckpoint(f"{name}/{FACTS} does not describe a student. Repeat the run that wrote it") from error
    if missing:
        raise BadCheckpoint(f"{name}/{FACTS} does not say the student's {', '.join(sorted(missing))}")
    if sha256_of(weights) != student["sha256"]:
        raise BadCheckpoint(f"{name}/{WEIGHTS} is not the file its {FACTS} describes (sha256 differs)")
    return {"options": {}, **student}
