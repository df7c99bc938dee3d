"""What a run shows while it works, always on stderr, and hiding what libraries print."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from disco_zoo.core.launcher import is_first_process

# Names and messages are printed as they are: a folder may be called runs/effb0[seed0], or :cat:.
console = Console(stderr=True, highlight=False, markup=False, emoji=False)
LINE_EVERY_SECONDS = 30.0


@functools.cache
def say_once(text: str) -> None:
    """Print a line once, from the first process of a run."""
    if is_first_process():
        console.print(text, soft_wrap=True)


def stdout_console(width: int | None = None) -> Console:
    """For results; `width` in columns, None for the terminal's. Names are printed as they are."""
    return Console(width=width, highlight=False, markup=False, emoji=False)


class StepProgress:
    """Progress over `total` units of work with a text of current figures.

    Args:
        label: what is going on, e.g. "DisCo student".
        total: units of work in all; `done` of them are finished already.
    """

    def __init__(self, label: str, total: int, done: int = 0) -> None:
        self.label, self.total, self.done = label, total, done
        self._start_done = done
        self._started = self._last_line = time.monotonic()
        self._unsaid = ""  # the latest line, where it is not printed yet
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}", markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(label, total=total, completed=done, figures="")

    def __enter__(self) -> StepProgress:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._bar.stop()
        if kind is None and self._unsaid:
            self._print_line()

    def advance(self, done: int, figures: str = "", unit: str = "") -> None:
        """Show that `done` units are finished, with current figures; `unit` is their plural, e.g. "images"."""
        self.done = done
        counted = f"{done:,} of {self.total:,} {unit}" if unit else ""
        self._bar.update(self._task, completed=done, figures=", ".join(filter(None, (counted, figures))))
        if not console.is_terminal:
            state = counted or f"{done}/{self.total}"
            self._unsaid = f"{self.label}: {', '.join(filter(None, (state, self._remaining(), figures)))}"
            if time.monotonic() - self._last_line >= LINE_EVERY_SECONDS:
                self._print_line()

    def part(self, first: int) -> Callable[[int, int], None]:
        """A callback for one part of the work, which begins after `first` units."""
        return lambda done, _: self.advance(first + done, unit="images")

    def update(self, done: int, total: int, unit: str = "images") -> None:
        """As `advance`, for work whose total becomes known during the work."""
        self.total = total
        self._bar.update(self._task, total=total)
        self.advance(done, unit=unit)

    def _print_line(self) -> None:
        console.print(self._unsaid, soft_wrap=True)
        self._last_line, self._unsaid = time.monotonic(), ""

    def _remaining(self) -> str:
        spent, finished = time.monotonic() - self._started, self.done - self._start_done
        if not finished or self.done >= self.total:
            return ""
        return f"about {duration(spent / finished * (self.total - self.done))} left"


def duration(seconds: float) -> str:
    """A time as text: "40 s", "7 min", "2 h 05 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings, logs and prints off the screen, and stdout for results; errors are raised as ever."""
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


@contextlib.contextmanager
def quiet_process() -> Iterator[None]:
    """As `quiet`, and also what libraries and programs of other languages write to stdout and stderr."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(descriptor) for descriptor in (1, 2)]
    try:
        with open(os.devnull, "wb") as nothing, quiet():
            for descriptor in (1, 2):
                os.dup2(nothing.fileno(), descriptor)
            yield
    finally:
        for descriptor, former in zip((1, 2), kept, strict=True):
            os.dup2(former, descriptor)
            os.close(former)
