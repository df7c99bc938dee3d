"""How long training waits for batches."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from disco_zoo.core.launcher import own_cores

WORTH_A_WORD = 0.1  # share of the time above which a hint is printed


class DataWait:
    """Counts the time between asking for a batch and having it.

    Work on an accelerator is queued: while it computes, the host may wait for data at no cost. There only the time
    counts in which the device had nothing to do, by its own clock.

    Args:
        device: where the steps are computed.
        seconds: waited before, of a resumed run.
    """

    def __init__(self, device: torch.device, seconds: float = 0.0) -> None:
        self._seconds, self._is_cuda = seconds, device.type == "cuda"
        self._last_step: Any = None
        # What the host waited, and the device's moments of the step before and of the batch's arrival.
        self._pending: list[tuple[float, Any, Any]] = []

    @property
    def seconds(self) -> float:
        """Waited so far, as far as the device has come."""
        while self._pending and self._pending[0][2].query():
            waited, step, arrival = self._pending.pop(0)
            self._seconds += min(waited, step.elapsed_time(arrival) / 1000.0)
        return self._seconds

    def over(self, batches: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The batches as they are."""
        iterator = iter(batches)
        while True:
            began = time.monotonic()
            batch = next(iterator, None)
            waited = time.monotonic() - began
            if self._last_step is None:
                self._seconds += waited
            else:
                self._pending.append((waited, self._last_step, self._moment()))
            if batch is None:
                return
            yield batch

    def step_queued(self) -> None:
        """Say that a step's work is on its way to the device."""
        if self._is_cuda:
            self._last_step = self._moment()

    def _moment(self) -> Any:
        """A CUDA event recorded behind the work queued so far."""
        event: Any = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def remedy(workers: int, device: torch.device) -> str:
    """A hint against waiting for data: more workers where cores are free, else less work per image."""
    cores = own_cores()
    free = cores - (torch.get_num_threads() if device.type == "cpu" else 1)
    pack = "if the images are large, resize them once with: disco-zoo data pack"
    if workers >= free:
        return f"All {cores} cores are taken; {pack}"
    return f"Type: --workers {min(free, max(1, 2 * workers))}, or {pack}"
