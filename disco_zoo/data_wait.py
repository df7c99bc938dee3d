"""How long training stands still because no batch is ready."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch

WORTH_A_WORD = 0.1  # share of the time from which people are told


class DataWait:
    """Counts the time between asking for a batch and having it.

    Work on an accelerator is queued: while it computes, the host may wait for data at no cost. Such waiting does not
    count.

    Attributes:
        seconds: waited so far.
    """

    def __init__(self, device: torch.device, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self._last_step: Any = torch.cuda.Event() if device.type == "cuda" else None

    def over(self, batches: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The batches as they are."""
        iterator = iter(batches)
        while True:
            began = time.monotonic()
            batch = next(iterator, None)
            if self._device_is_idle():
                self.seconds += time.monotonic() - began
            if batch is None:
                return
            yield batch

    def step_queued(self) -> None:
        """Say that a step's work is on its way to the device."""
        if self._last_step is not None:
            self._last_step.record()

    def _device_is_idle(self) -> bool:
        return self._last_step is None or bool(self._last_step.query())


def remedy(workers: int, device: torch.device) -> str:
    """What to type against waiting for data: more processes where cores are left for them, else less work an image."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    free = cores - (torch.get_num_threads() if device.type == "cpu" else 1)
    pack = "prepare the images once with: disco-zoo data pack"
    if workers >= free:
        return f"All {cores} cores are taken; {pack}"
    return f"Type: --workers {min(free, max(1, 2 * workers))}, or {pack}"
