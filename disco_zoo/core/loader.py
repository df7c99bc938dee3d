"""A DataLoader with a time limit on waiting for a batch, and batches allocated where a failure can be reported."""

from __future__ import annotations

import dataclasses
import inspect
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from disco_zoo.core.interrupts import leave_signals_to_parent, stop_was_asked_for
from disco_zoo.core.launcher import num_launched
from disco_zoo.errors import CannotRead, DiscoZooError, Interrupted

SHARED_MEMORY = Path("/dev/shm")  # where Linux keeps it
MIB = 2**20
TORCHS_HANDLER = "torch.utils.data._utils.signal_handling"  # the module of its handler of SIGCHLD


class SharedCollate:
    """A collate function whose tensors lie in shared memory when it returns.

    A loader's worker would otherwise move them there in the thread that feeds its queue. What fails in that thread is
    printed and dropped, and the process that waits for the batch waits for ever.
    """

    def __init__(self, collate: Callable[[Any], Any]) -> None:
        self.collate = collate

    def __call__(self, items: Any) -> Any:
        batch = self.collate(items)
        share(batch)
        return batch


def share(batch: Any) -> None:
    """Move the tensors of a batch to shared memory, in place: those in dicts, lists, tuples and dataclasses.

    Raises:
        RuntimeError: there is no room for them.
    """
    if isinstance(batch, Tensor):
        batch.share_memory_()
    elif isinstance(batch, dict):
        for value in batch.values():
            share(value)
    elif isinstance(batch, list | tuple):
        for value in batch:
            share(value)
    elif dataclasses.is_dataclass(batch):
        for field in dataclasses.fields(batch):
            share(getattr(batch, field.name))


def shared_memory_size() -> str:
    """Its size as text; "" where it is unknown."""
    try:
        found = os.statvfs(SHARED_MEMORY)
    except (OSError, AttributeError):
        return ""
    return f"{SHARED_MEMORY} of {found.f_blocks * found.f_frsize / MIB:.0f} MiB"


LOOK_EVERY_SECONDS = 5  # while a batch is waited for, at its workers and at Ctrl-C
PATIENCE_SECONDS = 300.0  # with workers that do nothing: neither compute nor read
BLIND_PATIENCE_SECONDS = 3600.0  # where the system does not say what they do

_NO_SHARED_MEMORY = ("unable to allocate shared memory", "unable to mmap", "Bus error")
_SIGBUS = int(getattr(signal, "SIGBUS", 7))  # of writing to shared memory that was promised and is not there
_NO_HANDLES = ("Too many open files", "received 0 items of ancdata")


class BoundedLoader(DataLoader[Any]):
    """A DataLoader as the product uses it.

    Workers leave signals to this process, random draws of others are left alone, and iterating raises, in place of
    waiting for ever or a traceback:

    - `CannotRead`: a worker was killed or stands still, shared memory or file handles ran out, a disk failed;
    - `Interrupted`: Ctrl-C, or a launcher's signal, while no batch came.

    Args:
        dataset, batching: see `DataLoader`.
        collate: makes a batch of items; with `batch_size=None` it is given what the data set gives.
        workers: processes that read; 0 reads in this one.
    """

    def __init__(self, dataset: Any, *, collate: Callable[[Any], Any], workers: int, **batching: Any) -> None:
        super().__init__(
            dataset,
            collate_fn=SharedCollate(collate) if workers else collate,
            num_workers=workers,
            timeout=LOOK_EVERY_SECONDS if workers else 0,
            worker_init_fn=leave_signals_to_parent,
            generator=torch.Generator().manual_seed(0),  # not the global one, which others draw from
            **batching,
        )

    def __iter__(self) -> Any:
        if not self.num_workers:
            return super().__iter__()
        # Torch's handler would raise a dead worker's error anywhere, also in the middle of a step.
        former = _before_torchs(signal.getsignal(signal.SIGCHLD)) if hasattr(signal, "SIGCHLD") else None
        try:
            waiting = _BoundedIterator(super().__iter__(), self.num_workers)
        except OSError as error:
            raise CannotRead(
                f"cannot start {self.num_workers} processes to read images ({error.strerror or error}). "
                "Type: --workers 0, or fewer"
            ) from error
        if former is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, former)
        return waiting


def _before_torchs(handler: Any) -> Any:
    """The handler, or the one before it where it is torch's: a plain loader of this process has set it."""
    if getattr(handler, "__module__", None) != TORCHS_HANDLER:
        return handler
    return inspect.getclosurevars(handler).nonlocals.get("previous_handler") or signal.SIG_DFL


def unchanged(batch: Any) -> Any:
    """The collate function of items that are whole batches, or that stay a list."""
    return batch


class _BoundedIterator(Iterator[Any]):
    """Waits as long as a worker makes progress."""

    def __init__(self, batches: Any, workers: int) -> None:
        self.batches, self.workers = batches, workers

    def __next__(self) -> Any:
        since, work = time.monotonic(), self._work_done()
        while True:
            try:
                return next(self.batches)
            except DiscoZooError as error:
                raise _without_traceback(error) from None
            except (RuntimeError, OSError, EOFError) as error:
                if "DataLoader timed out" not in str(error):
                    raise self._explained(error) from error
            if stop_was_asked_for() and num_launched() == 1:
                raise Interrupted("stopped while waiting for images; to go on, repeat the command with --resume")
            done = self._work_done()
            if done != work:
                since, work = time.monotonic(), done
            waited = time.monotonic() - since
            if waited > (BLIND_PATIENCE_SECONDS if work is None else PATIENCE_SECONDS):
                raise CannotRead(
                    f"no image came for {waited:.0f} s, in which the {self.workers} processes that read them did "
                    "nothing: a network disk may not answer. Look at it, or type: --workers 0"
                )

    def _processes(self) -> list[Any]:
        return list(getattr(self.batches, "_workers", ()))

    def _work_done(self) -> tuple[int, ...] | None:
        """Clock ticks and bytes read of all workers; None where the system does not say."""
        counts: list[int] = []
        for process in self._processes():
            try:
                fields = Path(f"/proc/{process.pid}/stat").read_text("utf-8").rpartition(")")[2].split()
                reads = Path(f"/proc/{process.pid}/io").read_text("utf-8").split()
            except OSError:
                return None
            counts += [int(fields[11]), int(fields[12]), int(reads[1])]
        return tuple(counts) or None

    def _explained(self, error: BaseException) -> BaseException:
        """The error in the user's words, or as it is."""
        text = str(error)
        ended = {process.exitcode for process in self._processes() if process.exitcode}
        if any(words in text for words in _NO_SHARED_MEMORY) or -_SIGBUS in ended:
            return CannotRead(
                f"shared memory ({shared_memory_size() or 'of this system'}) is too small for the batches of "
                f"{self.workers} processes. Type: --workers 0, or make it larger (docker run --shm-size=8g)"
            )
        if any(words in text for words in _NO_HANDLES):
            return CannotRead("too many files are open. Type: ulimit -n 65536, or --workers 0")
        if "exited unexpectedly" in text or ended:
            if stop_was_asked_for() and num_launched() == 1:  # a launcher's signal went to all processes
                return Interrupted("stopped while waiting for images; to go on, repeat the command with --resume")
            return CannotRead(_how_it_ended(ended, self.workers))
        return error


def _how_it_ended(exit_codes: set[int], workers: int) -> str:
    signals = sorted(signal.Signals(-code).name for code in exit_codes if code < 0)
    how = f"was killed by {signals[0]}" if signals else "ended"
    why = ", which mostly means that memory ran out" if "SIGKILL" in signals else ""
    fewer = f"--workers {workers // 2}" if workers > 1 else "--workers 0"
    return f"a process that reads images {how}{why}. Type: {fewer}"


def _without_traceback(error: DiscoZooError) -> DiscoZooError:
    """The error a worker raised, without the worker's traceback in its message."""
    text = str(error)
    if not text.startswith("Caught ") or "DataLoader worker" not in text:
        return error
    return type(error)(text.rstrip().splitlines()[-1].partition(": ")[2])
