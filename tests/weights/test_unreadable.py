"""A file that the system does not read is not called damaged: the advice would be to throw a sound one away."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from disco_zoo.errors import BadCheckpoint
from disco_zoo.models import classifier_dir
from disco_zoo.tasks import dense_run
from disco_zoo.weights.convert import reading

Read = Callable[[Path], object]


def pickled(path: Path) -> object:
    torch.save({"weight": torch.ones(2)}, path)
    return reading.read_container(path)


def safetensors(path: Path) -> object:
    save_file({"weight": torch.ones(2)}, path)
    return reading.read_container(path)


def classifier(path: Path) -> object:
    return classifier_dir._load_strictly(nn.Linear(2, 2), path)


def dense(path: Path) -> object:
    return dense_run.load_weights(nn.Linear(2, 2), path)


@pytest.mark.parametrize("read", [pickled, safetensors, classifier, dense])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.EIO, os.strerror(errno.EIO)), "Input/output error"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "too little memory"),
        (MemoryError(), "too little memory"),
    ],
)
def test_what_the_system_does_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Read, error: BaseException, reason: str
) -> None:
    def refuse(*_: object, **options: object) -> None:
        raise error

    for module in (reading, classifier_dir, dense_run):
        monkeypatch.setattr(module, "load_file", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(BadCheckpoint, match=rf"x cannot be read: {reason}$"):
        read(tmp_path / "x")
