"""Memory that a training on a CPU keeps from step to step.

A step frees its activations and asks for as many again. glibc's malloc takes each block above 32 MiB from the kernel,
and gives it back when it is freed, so that all its pages are mapped and zeroed again in every step: a third of the
processor's time of an EfficientNet-B0 at 224 px, in a batch of 40 (`benchmarks/kept_memory.py`).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from collections.abc import Callable
from types import TracebackType

import torch

from disco_zoo.core.process import MIB, available_bytes, peak_memory_mib

# Of malloc.h: mallopt(3).
TRIM_THRESHOLD, MMAP_MAX = -1, -4
NEVER = 2**31 - 1
USUAL = {MMAP_MAX: 65_536, TRIM_THRESHOLD: 64 * MIB}  # the second is what glibc arrives at by itself, with such blocks
USERS_OWN = ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_")
MOST_MORE = 0.5  # of the peak so far: a heap that is kept has gaps, which took 2 to 22 % more


class KeptMemory(contextlib.AbstractContextManager["KeptMemory"]):
    """While it is entered, from the first `after_step` on, what a step frees stays with the process; then it goes back.

    Nothing changes on an accelerator, without glibc, where an environment variable says how malloc is to work, or
    where half as much memory as the first step took is not free. Where the gaps come to take as much, it ends.
    """

    def __init__(self, device: torch.device | str) -> None:
        self.is_kept = False
        self._mallopt = _mallopt() if torch.device(device).type == "cpu" else None
        self._most_mib = 0.0

    def after_step(self) -> None:
        if self._mallopt is None:
            return
        peak = peak_memory_mib() or 0.0
        if not self.is_kept:
            self._most_mib = (1 + MOST_MORE) * peak
            if (available_bytes() or 0) >= MOST_MORE * peak * MIB:
                self.is_kept = bool(self._mallopt(MMAP_MAX, 0) and self._mallopt(TRIM_THRESHOLD, NEVER))
        if peak > self._most_mib or not self.is_kept:
            self._end()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        """For good."""
        if self.is_kept and self._mallopt is not None:
            for parameter, value in USUAL.items():
                self._mallopt(parameter, value)
            ctypes.CDLL(None).malloc_trim(0)
        self.is_kept, self._mallopt = False, None


def _mallopt() -> Callable[[int, int], int] | None:
    """glibc's; None where there is none, or where the user has set it."""
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in USERS_OWN):
        return None
    return ctypes.CDLL(None).mallopt
