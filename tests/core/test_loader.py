"""Waiting for workers has an end: too little shared memory, a killed or idle worker, Ctrl-C while nothing comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import subprocess_environment
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data import _utils as torchs_loader

from disco_zoo.core import loader as loader_module
from disco_zoo.core.interrupts import InterruptFlag
from disco_zoo.core.loader import BoundedLoader
from disco_zoo.errors import BadData, CannotRead, Interrupted


class Rows(Dataset[Tensor]):
    """Item i: what `act(i)` gives, or a row of i."""

    def __init__(self, number: int, act: Callable[[int], Any]) -> None:
        self.number, self.act = number, act

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> Tensor:
        self.act(index)
        return torch.full((4,), float(index))


def loaded(act: Callable[[int], Any], number: int = 8, workers: int = 2) -> BoundedLoader:
    return BoundedLoader(Rows(number, act), batch_size=2, collate=torch.stack, workers=workers)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look every second; and torch waits five seconds for each worker that does not end by itself, then ends it."""
    monkeypatch.setattr(loader_module, "LOOK_EVERY_SECONDS", 1)
    monkeypatch.setattr(torchs_loader, "MP_STATUS_CHECK_INTERVAL", 0.2)


def nothing(_: int) -> None:
    pass


def kill_at_five(index: int) -> None:
    if index == 5:
        os.kill(os.getpid(), signal.SIGKILL)


def refuse_three(index: int) -> None:
    if index == 3:
        raise BadData("the third is bad")


def sleep_long(_: int) -> None:
    time.sleep(60)


def test_batches_are_those_of_one_process_and_draws_of_others_are_left_alone() -> None:
    state = torch.get_rng_state()
    alone, shared = [list(loaded(nothing, workers=workers)) for workers in (0, 2)]
    assert all(torch.equal(a, b) for a, b in zip(alone, shared, strict=True))
    assert len(alone) == 4
    assert torch.equal(state, torch.get_rng_state())


@pytest.fixture(params=["no handler", "a handler", "torch's", "torch's over a handler"])
def handler(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """What other code of this process has set before: the handler that is not torch's."""
    former = signal.getsignal(signal.SIGCHLD)
    own: Any = (lambda signum, frame: None) if request.param.endswith("a handler") else signal.SIG_DFL
    signal.signal(signal.SIGCHLD, own)
    if request.param.startswith("torch's"):  # a plain loader with workers sets it, once a process
        monkeypatch.setattr(f"{loader_module.TORCHS_HANDLER}._SIGCHLD_handler_set", False)
        list(DataLoader(Rows(2, nothing), num_workers=1))
        assert signal.getsignal(signal.SIGCHLD) is not own
    yield own
    signal.signal(signal.SIGCHLD, former)


def test_a_killed_worker_is_told_where_a_batch_is_waited_for_and_nowhere_else(handler: Any) -> None:
    batches = iter(loaded(kill_at_five))
    assert signal.getsignal(signal.SIGCHLD) is handler  # torch's would raise in the middle of a step
    time.sleep(1.0)  # computing, say; the worker dies meanwhile
    with pytest.raises(CannotRead, match=r"killed by SIGKILL, which .* memory ran out. Type: --workers 1"):
        list(batches)


def test_what_a_worker_says_comes_without_its_traceback() -> None:
    with pytest.raises(BadData, match=r"^the third is bad$"):
        list(loaded(refuse_three))


def test_workers_that_do_nothing_are_waited_for_so_long_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader_module, "PATIENCE_SECONDS", 1.5)
    with pytest.raises(CannotRead, match="in which the 2 processes that read them did nothing"):
        next(iter(loaded(sleep_long)))


def compute_for_a_while(_: int) -> None:
    begun = time.process_time()
    while time.process_time() - begun < 1.2:
        pass


def test_workers_that_compute_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader_module, "PATIENCE_SECONDS", 1.9)
    assert len(next(iter(loaded(compute_for_a_while, number=2, workers=1)))) == 2


@pytest.mark.parametrize(
    "kind", ["SIGTERM", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("SIGINT", "SIGUSR1"))]
)
def test_a_signal_is_heard_while_no_batch_comes(kind: str) -> None:
    with InterruptFlag():
        batches = iter(loaded(sleep_long))
        threading.Timer(0.2, os.kill, (os.getpid(), getattr(signal, kind))).start()
        begun = time.monotonic()
        with pytest.raises(Interrupted):
            next(batches)
    assert time.monotonic() - begun < 20


SMALL_MEMORY = """
import torch
from torch.utils.data import Dataset, _utils
from disco_zoo.core.loader import BoundedLoader
from disco_zoo.errors import CannotRead
_utils.MP_STATUS_CHECK_INTERVAL = 0.2
class Large(Dataset):
    def __len__(self): return 8
    def __getitem__(self, index): return torch.ones(3, 224, 224)
try:
    for batch in BoundedLoader(Large(), batch_size=4, collate=lambda rows: {"views": [torch.stack(rows)]}, workers=2):
        pass
except CannotRead as error:
    print(error)
"""


def test_too_little_shared_memory_is_said_at_once(tmp_path: Path) -> None:
    """As in a container: /dev/shm of 1 MiB for batches of 2.4 MB, in a mount namespace of its own."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not make a mount namespace")
    mount = "mount -t tmpfs -o size=1m tmpfs /dev/shm"
    found = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{mount} && exec "$0" -c "$1"', sys.executable, SMALL_MEMORY],
        capture_output=True,
        text=True,
        timeout=120,
        env=subprocess_environment(),
        check=False,
    )
    assert "shared memory (/dev/shm of 1 MiB) is too small for the batches of 2 processes" in found.stdout, found.stderr
    assert "Type: --workers 0" in found.stdout
