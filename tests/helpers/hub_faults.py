"""Faults of the test Hub: what is done to which requests, and how often.

    hub.fail(status(503), method="HEAD", path="*/resolve/*", times=2)
    hub.fail(truncate(at=100), path="*.safetensors")

`path` is a shell pattern on the path without its query. A fault applies to `times` requests, then is spent.
"""

from __future__ import annotations

import fnmatch
import threading
from dataclasses import dataclass, field


@dataclass
class Fault:
    """One fault. Of the fields below `times` at most one is set: it is what happens."""

    method: str = "*"
    path: str = "*"
    times: float = float("inf")
    seen: int = 0  # requests this fault was applied to
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    truncate_at: int | None = None  # bytes of the body sent before the connection is closed
    stall_at: int | None = None  # bytes of the body sent before nothing more comes
    flip: int | None = None  # position of the byte whose lowest bit is flipped, from the end if negative
    body: bytes | None = None  # sent in place of the body, with its own length
    drop: bool = False  # the connection is closed without an answer
    delay: float = 0.0  # seconds before the answer
    silent: bool = False  # accepted, never answered
    pace: float = 0.0  # seconds between pieces of 64 KiB

    def matches(self, method: str, path: str) -> bool:
        return fnmatch.fnmatch(method, self.method) and fnmatch.fnmatch(path, self.path)

    def change(self, body: bytes) -> bytes:
        """The body as this fault leaves it."""
        if self.body is not None:
            return self.body
        if self.flip is not None and body:
            changed = bytearray(body)
            changed[self.flip % len(body)] ^= 1
            return bytes(changed)
        return body


def status(code: int, **headers: str) -> Fault:
    """Answer with `code`; underscores in header names become dashes."""
    return Fault(status=code, headers={name.replace("_", "-"): value for name, value in headers.items()})


def truncate(at: int) -> Fault:
    """Promise the whole body, send `at` bytes of it, close."""
    return Fault(truncate_at=at)


def stall(at: int) -> Fault:
    """Promise the whole body, send `at` bytes of it, then send nothing more."""
    return Fault(stall_at=at)


def corrupt(at: int = -1) -> Fault:
    """Flip one bit: the same length, other bytes. Applied to an upload, the flipped bytes are what is stored."""
    return Fault(flip=at)


def replace(body: bytes) -> Fault:
    """Send something else, such as a login page."""
    return Fault(body=body)


def drop() -> Fault:
    """Close the connection without an answer."""
    return Fault(drop=True)


def delay(seconds: float) -> Fault:
    """Answer late."""
    return Fault(delay=seconds)


def pace(seconds: float) -> Fault:
    """Send the body in pieces of 64 KiB with a pause of `seconds` before each."""
    return Fault(pace=seconds)


def silent() -> Fault:
    """Accept the request and never answer."""
    return Fault(silent=True)


class FaultPlan:
    """The faults to come; the first that matches a request is applied."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def add(self, fault: Fault, method: str, path: str, times: float) -> Fault:
        fault.method, fault.path, fault.times = method, path, times
        with self._lock:
            self._faults.append(fault)
        return fault

    def take(self, method: str, path: str) -> Fault:
        """The fault for this request; one that does nothing if none is left."""
        with self._lock:
            for fault in self._faults:
                if fault.seen < fault.times and fault.matches(method, path):
                    fault.seen += 1
                    return fault
        return Fault()

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()
