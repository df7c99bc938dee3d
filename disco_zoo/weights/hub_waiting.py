"""Calls with a time limit: runs them in a thread, and prints a line while the user waits."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from huggingface_hub.utils import tqdm

from disco_zoo.weights.hub_errors import NoAnswer

T = TypeVar("T")

LINE_AFTER_SECONDS = 2.0
# Bytes received over bytes of the file, at which a server that keeps cutting the connection is given up: without
# Range each try starts from zero, and the client would go on for ever (huggingface_hub 2.4.0).
MOST_COPIES = 3


class Body:
    """The download of one file's bytes, as the client's progress bar sees it."""

    def __init__(self, on_begin: Callable[[], None]) -> None:
        self.begun = threading.Event()
        self.given_up = False
        self.last_piece = time.monotonic()
        self._received = 0
        self._on_begin = on_begin

    def begin(self) -> None:
        self.last_piece = time.monotonic()
        self.begun.set()
        self._on_begin()

    def receive(self, size_bytes: float, total_bytes: float | None) -> None:
        """Count a piece. Raises NoAnswer, in the thread that downloads, when there is no sense in going on."""
        self.last_piece = time.monotonic()
        self._received += max(int(size_bytes), 0)
        if self.given_up:
            raise NoAnswer("was given up")
        if total_bytes and self._received > MOST_COPIES * total_bytes:
            raise NoAnswer("cuts the connection again and again")

    def bar_class(self) -> type[tqdm]:
        """The client's own progress bar, which tells this object of each piece."""
        body = self

        class Bar(tqdm):  # type: ignore[misc, type-arg, unused-ignore]
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                self._expected = kwargs.get("total")
                body.begin()

            def update(self, n: float | None = 1) -> bool | None:
                body.receive(n or 0, self._expected)
                shown: bool | None = super().update(n)
                return shown

        return Bar

    def run(self, work: Callable[[], T], answer_seconds: float, piece_seconds: float) -> T:
        """Do `work` in a thread.

        Args:
            answer_seconds: how long the body may be in coming.
            piece_seconds: how long each further piece of it may be.

        Raises:
            NoAnswer: it was given up. The thread ends by itself at the client's next time-out or piece.
        """
        thread = _Thread(work, self.begun.set)
        if not self.begun.wait(answer_seconds):
            self.given_up = True
            raise NoAnswer(f"sends nothing ({answer_seconds:.0f} s)")
        while not thread.done.wait(1.0):
            if time.monotonic() - self.last_piece > piece_seconds:
                self.given_up = True
                raise NoAnswer(f"stopped sending ({piece_seconds:.0f} s)")
        return thread.result()


class Transfer:
    """A pending transfer; prints one line when it takes longer than `LINE_AFTER_SECONDS`."""

    def __init__(self, url: str, name: str) -> None:
        self.url, self.name = url, name
        self.size_bytes: int | None = None
        self._shown_by_bar = False

    def new_body(self) -> Body:
        return Body(self._begin)

    def _begin(self) -> None:
        self._shown_by_bar = sys.stderr.isatty()

    def print_line(self) -> None:
        if not self._shown_by_bar:
            size = f", {self.size_bytes / 1e6:.1f} MB" if self.size_bytes else ""
            print(f"disco-zoo: waiting for {self.url} ({self.name}{size}) ...", file=sys.stderr, flush=True)


@contextmanager
def waiting_line(url: str, name: str) -> Iterator[Transfer]:
    """Print on stderr what the program waits for, if it takes longer than two seconds."""
    line = Transfer(url, name)
    timer = threading.Timer(LINE_AFTER_SECONDS, line.print_line)
    timer.daemon = True
    timer.start()
    try:
        yield line
    finally:
        timer.cancel()


def within(work: Callable[[], T], seconds: float) -> T:
    """The result of `work`, or NoAnswer after `seconds`; the thread is then left to end by itself."""
    thread = _Thread(work)
    if not thread.done.wait(seconds):
        raise NoAnswer(f"does not answer ({seconds:.0f} s)")
    return thread.result()


class _Thread:
    """A daemon thread whose result or error is handed on."""

    def __init__(self, work: Callable[[], Any], when_done: Callable[[], None] | None = None) -> None:
        self.done = threading.Event()
        self._work, self._when_done = work, when_done
        self._result: Any = None
        self._error: BaseException | None = None
        threading.Thread(target=self._run, daemon=True, name="disco-zoo download").start()

    def _run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:  # raised again where the result is asked for
            self._error = error
        finally:
            self.done.set()
            if self._when_done is not None:
                self._when_done()

    def result(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._result
