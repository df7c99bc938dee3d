"""Every contestant waits for "go N", takes N steps and says how long they took. It imports nothing of the package."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable


class Quota:
    """Lets a training loop run for as many steps as it was told, then waits for the next word.

    Call `step_done` at the end of every step. Time counts from the word to the last step's end, so whatever a loop does
    between its steps is in it. Whatever else a library prints goes to its log: half a line of a progress bar before an
    answer would hide it.
    """

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._left, self._steps, self._begun = 0, 0, 0.0

    def ready(self) -> None:
        """Say so, and wait for the first word."""
        print("ready", file=self._answers, flush=True)
        self._wait()

    def step_done(self) -> None:
        self._left -= 1
        if self._left == 0:
            seconds = time.perf_counter() - self._begun
            print(f"took {seconds} {self._steps}", file=self._answers, flush=True)
            self._wait()

    def _wait(self) -> None:
        word = sys.stdin.readline().split()
        if word[:1] != ["go"]:
            sys.exit(0)
        self._left = self._steps = int(word[1])
        self._begun = time.perf_counter()


def run_steps(step: Callable[[], None]) -> None:
    """The loop of a contestant that is a plain function."""
    quota = Quota()
    step()  # allocations and caches of the first time
    quota.ready()
    while True:
        step()
        quota.step_done()
