"""Memory of this process and what is left for it, and its number of threads for many short operations."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from disco_zoo.errors import require

MIB = 2**20


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
