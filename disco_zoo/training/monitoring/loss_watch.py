"""Detects losses that are not finite, without synchronizing with an accelerator at each step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class BadLoss:
    """A loss that is not finite, the step that had it (counted from 0), and the rate it was to be taken with."""

    value: float
    step: int
    lr: float


def reading_is_free(device: torch.device) -> bool:
    """Whether a number can be read without waiting for work that was queued."""
    return device.type == "cpu"


class LossWatch:
    """Keeps the losses where they are until they are read.

    Args:
        device: of the losses. On a CPU each one is read as it comes.
    """

    def __init__(self, device: torch.device) -> None:
        self._each_step = reading_is_free(device)
        self._kept: list[tuple[Tensor, int, float]] = []

    def note(self, loss: Tensor, step: int, lr: float) -> BadLoss | None:
        """Take in a step's loss (a scalar); on a CPU, say at once whether it is bad."""
        self._kept.append((loss.detach(), step, lr))
        return self.first_bad() if self._each_step else None

    def first_bad(self) -> BadLoss | None:
        """Read the losses noted since the last reading, all in one transfer; the first that is not finite."""
        kept, self._kept = self._kept, []
        if not kept:
            return None
        values = torch.stack([loss for loss, _, _ in kept]).tolist()
        for value, (_, step, lr) in zip(values, kept, strict=True):
            if not math.isfinite(value):
                return BadLoss(value, step, lr)
        return None
