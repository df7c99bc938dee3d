"""Ctrl-C and launchers' signals as a request: the loop finishes its step, saves and stops."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any, ClassVar

# SIGTERM: a launcher ends the job, and kills it half a minute later. SIGUSR1, SIGUSR2, SIGXCPU: warnings before a limit
# (SLURM, Grid Engine, LSF). SIGHUP: the terminal is gone.
_WARNINGS = tuple(
    getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGHUP") if hasattr(signal, name)
)
_LAUNCHERS = (signal.SIGTERM, *_WARNINGS)


def leave_signals_to_parent(_: int) -> None:
    """Ctrl-C and warnings reach a loader's workers, too: they must live until the parent has finished its step.

    SIGTERM stays as it is: it is how the parent ends them.
    """
    for kind in (signal.SIGINT, *_WARNINGS):
        signal.signal(kind, signal.SIG_IGN)


@contextlib.contextmanager
def launchers_signals_as_interrupts() -> Iterator[None]:
    """Let a launcher's signals do what Ctrl-C does, where they would end the process without a word."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    ours = [kind for kind in _LAUNCHERS if in_main_thread and signal.getsignal(kind) == signal.SIG_DFL]
    for kind in ours:
        signal.signal(kind, signal.default_int_handler)
    try:
        yield
    finally:
        for kind in ours:
            signal.signal(kind, signal.SIG_DFL)


class InterruptFlag:
    """While active, the first signal raises the flag and the second one acts as usual."""

    _active: ClassVar[list[InterruptFlag]] = []

    def __init__(self) -> None:
        self.raised = False
        self._former: dict[signal.Signals, Any] = {}

    def __enter__(self) -> InterruptFlag:
        if threading.current_thread() is threading.main_thread():
            # nohup has a closed terminal ignored, and so it stays.
            ignored = [kind for kind in _WARNINGS if signal.getsignal(kind) == signal.SIG_IGN]
            for kind in (signal.SIGINT, *(one for one in _LAUNCHERS if one not in ignored)):
                self._former[kind] = signal.signal(kind, self._raise)
        self._active.append(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._active.remove(self)
        self._restore()

    def _raise(self, number: int, frame: FrameType | None) -> None:
        self.raised = True
        self._restore()

    def _restore(self) -> None:
        for kind, handler in self._former.items():
            signal.signal(kind, handler)
        self._former = {}


def stop_was_asked_for() -> bool:
    """Whether a flag that is active has been raised."""
    return any(flag.raised for flag in InterruptFlag._active)
