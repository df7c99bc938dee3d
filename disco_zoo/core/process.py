"""Memory of this process: its peak, what is left, what training steps keep; and its threads for short operations."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import ClassVar

import torch

from disco_zoo.core.huge_pages import collapse_memory
from disco_zoo.errors import require

MIB = 2**20
# Of malloc.h: mallopt(3).
TRIM_THRESHOLD, MMAP_MAX = -1, -4
NEVER = 2**31 - 1
USUAL = {MMAP_MAX: 65_536, TRIM_THRESHOLD: 64 * MIB}  # the second is what glibc arrives at by itself, with such blocks
USERS_OWN = ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_")
STEPS_TO_COLLAPSE = 16  # of a run: the move takes as long as one to six, so that a short run would not gain by it
STEPS_BETWEEN_COLLAPSES = 500  # a system that looks for idle memory splits huge pages; where none was, it takes 10 ms
MOST_MORE = 0.5  # of the peak so far: a heap that is kept has gaps, which took 2 to 15 % more


def peak_memory_mib(device: torch.device | str = "cpu") -> float | None:
    """Peak in MiB: of tensors on a CUDA device, else of this process's resident memory; None where unknown."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MIB
    status = Path("/proc/self/status")
    if status.is_file():
        # Not getrusage: on Linux a child starts with its parent's peak.
        fields = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines() if ":" in line)
        return int(fields["VmHWM"].split()[0]) / 1024 if "VmHWM" in fields else None
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MIB if sys.platform == "darwin" else peak / 1024


def available_bytes() -> int | None:
    """Memory that this process may still take: the machine's, or its container's limit; None where it is unknown."""
    try:
        lines = Path("/proc/meminfo").read_text("utf-8").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None
    try:
        group = Path("/sys/fs/cgroup")
        limit, used = ((group / name).read_text("utf-8").strip() for name in ("memory.max", "memory.current"))
        return min(free, max(0, int(limit) - int(used)))
    except (OSError, ValueError):  # no such limit
        return free


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one CPU thread, then with as many as before.

    L-BFGS and t-SNE make thousands of short operations. On a busy machine, waiting for the other threads at
    each of them made both several times slower (measured). One thread also gives the same bits whatever
    the number of cores.
    """
    threads = torch.get_num_threads()
    limits: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
    if importlib.util.find_spec("threadpoolctl") is not None:  # scikit-learn brings it, and needs it here
        limits = require("threadpoolctl", "train").threadpool_limits(1)
    torch.set_num_threads(1)
    try:
        with limits:
            yield
    finally:
        torch.set_num_threads(threads)


def give_back_free_memory() -> None:
    """Have glibc's malloc return what is free inside its heaps; without glibc nothing happens. It takes some ms.

    Blocks that threads ask for and free in turns leave gaps that malloc does not use again: the more images, the more
    memory their features took beside what they hold. Within a training that keeps its memory nothing happens either:
    what goes back comes again in small pages, and the steps after an evaluation took 1.5 times as long
    (`benchmarks/kept_memory.py --evaluate`).
    """
    if not KeptMemory.in_use and platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


class KeptMemory(contextlib.AbstractContextManager["KeptMemory"]):
    """While it is entered, from the first `after_step` on, what a step frees stays with the process; then it goes back.

    A training step on a CPU frees its activations and asks for as many again. glibc's malloc takes each block above
    32 MiB from the kernel, and gives it back when it is freed, so that all its pages are mapped and zeroed again in
    every step: a third of the processor's time of an EfficientNet-B0 at 224 px, in a batch of 32
    (`benchmarks/kept_memory.py`). In a run that is not short the heap, which has its size by then, gets huge pages.

    Nothing changes on an accelerator, without glibc, where an environment variable says how malloc is to work, or
    where half as much memory as the first step took is not free. Where the gaps come to take as much, it ends.

    Args:
        device: where steps are computed.
        steps_to_collapse: after so many steps the memory goes into huge pages, and again from time to time.

    Attributes:
        in_use: whether any keeps memory.
    """

    in_use: ClassVar[bool] = False

    def __init__(self, device: torch.device | str, steps_to_collapse: int = STEPS_TO_COLLAPSE) -> None:
        self.is_kept, self.steps_to_collapse = False, steps_to_collapse
        self._mallopt = _mallopt() if torch.device(device).type == "cpu" else None
        self._most_mib = 0.0
        self._kept_steps = 0

    def after_step(self) -> None:
        if self._mallopt is None:
            return
        peak = peak_memory_mib() or 0.0
        if not self.is_kept:
            self._most_mib = (1 + MOST_MORE) * peak
            if (available_bytes() or 0) >= MOST_MORE * peak * MIB:
                self.is_kept = bool(self._mallopt(MMAP_MAX, 0) and self._mallopt(TRIM_THRESHOLD, NEVER))
                KeptMemory.in_use = self.is_kept
        if peak > self._most_mib or not self.is_kept:
            self._end()
            return
        self._kept_steps += 1
        if self._kept_steps % STEPS_BETWEEN_COLLAPSES == self.steps_to_collapse:
            collapse_memory()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        """For good."""
        if self.is_kept and self._mallopt is not None:
            for parameter, value in USUAL.items():
                self._mallopt(parameter, value)
            KeptMemory.in_use = False
            give_back_free_memory()
        self.is_kept, self._mallopt = False, None


def _mallopt() -> Callable[[int, int], int] | None:
    """glibc's; None where there is none, or where the user has set it."""
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in USERS_OWN):
        return None
    return ctypes.CDLL(None).mallopt
