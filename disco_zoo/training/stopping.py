"""What stops a run before its end: an interrupt, another process, a loss that is not finite; and what it says then.

Losses are watched without synchronizing with an accelerator at each step.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from disco_zoo.core.distributed import num_processes
from disco_zoo.core.interrupts import InterruptFlag
from disco_zoo.errors import CannotRead, DiscoZooError, Interrupted


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


ASK_EVERY_SECONDS = 2.0


class StopVotes:
    """Whether a process of the run was told to stop.

    One process looks at its flag after each step. Several have to agree, which waits for the slowest; so they ask
    one another every few seconds, at steps that follow from the speed of the slowest and are hence the same for all.

    Args:
        device: one that the processes can talk through.
        step: from which the run goes on.

    Attributes:
        agreed: whether all processes know that the run stops.
    """

    def __init__(self, flag: InterruptFlag, device: torch.device, step: int) -> None:
        self.flag, self.device, self.agreed = flag, device, False
        self._asked, self._next, self._clock = step, step + 1, time.monotonic()

    def __call__(self, step: int) -> bool:
        """Ask after step number `step`; all processes do."""
        if num_processes() == 1:
            return self.flag.raised
        if step < self._next:
            return False
        seconds = (time.monotonic() - self._clock) / max(1, step - self._asked)
        votes = torch.tensor([float(self.flag.raised), seconds], device=self.device)
        dist.all_reduce(votes, op=dist.ReduceOp.MAX)
        raised, slowest = votes.tolist()
        self.agreed = raised > 0
        self._asked, self._clock = step, time.monotonic()
        self._next = step + max(1, int(ASK_EVERY_SECONDS / max(slowest, 1e-4)))
        return self.agreed


def stopped(error: DiscoZooError, step: int, total_steps: int, saved_step: int | None) -> DiscoZooError:
    """The error with how far the run is, and what to type.

    Args:
        error: `CannotRead` says why, `Interrupted` need not.
        saved_step: of the checkpoint, saved by now if it can be; None where there is none.
    """
    if saved_step is not None:
        kept = "" if saved_step == step else f"; the checkpoint is of step {saved_step}"
        onward = "To go on, repeat the command with --resume"
    else:
        kept = "" if step == 0 else ", before its first checkpoint"
        onward = "Nothing was trained yet: repeat the command" if step == 0 else "Repeat the command"
    if isinstance(error, Interrupted):
        return Interrupted(f"stopped at step {step} of {total_steps}{kept or '; nothing is lost'}. {onward}")
    if saved_step == step:
        kept = " and its checkpoint is kept"
    where = f" at step {step} of {total_steps}{kept}" if kept else ""
    return CannotRead(f"{error}. The run stopped{where}. {onward}")
