"""Ctrl-C and SIGTERM as a request: the loop finishes its step, saves and stops."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


def leave_interrupts_to_parent(_: int) -> None:
    """Ctrl-C reaches a loader's workers, too: they must live until the main process has finished its step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class InterruptFlag:
    """While active, the first signal raises the flag and the second one acts as usual."""

    def __init__(self) -> None:
        self.raised = False
        self._former: dict[signal.Signals, Any] = {}

    def __enter__(self) -> InterruptFlag:
        if threading.current_thread() is threading.main_thread():
            for kind in (signal.SIGINT, signal.SIGTERM):
                self._former[kind] = signal.signal(kind, self._raise)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._restore()

    def _raise(self, number: int, frame: FrameType | None) -> None:
        self.raised = True
        self._restore()

    def _restore(self) -> None:
        for kind, handler in self._former.items():
            signal.signal(kind, handler)
        self._former = {}
