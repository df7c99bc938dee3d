"""Errors of disks and networks that may pass: retried for a while, and never counted as unreadable images."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from disco_zoo.core.console import say_once
from disco_zoo.errors import CannotRead

WAITS_SECONDS = (0.1, 0.5, 2.0, 5.0)  # before the second, third ... try

_NAMES = (
    "EAGAIN EBUSY ECONNABORTED ECONNRESET EHOSTDOWN EHOSTUNREACH EINTR EIO EMFILE ENETDOWN ENETRESET ENETUNREACH "
    "ENFILE ENOLCK ENOMEM ENOTCONN EREMOTEIO ESTALE ETIMEDOUT"
)
PASSING = {getattr(errno, name) for name in _NAMES.split() if hasattr(errno, name)}  # not every system has them all

Read = TypeVar("Read")


def is_passing(error: BaseException) -> bool:
    """Whether an error says something of the system that reads and nothing of the file.

    Decoders raise `OSError` for damaged bytes, but without a number.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in PASSING
    return isinstance(error, ConnectionError | TimeoutError | MemoryError)


def cannot_read(what: str, error: BaseException) -> CannotRead:
    """The error that stops a run: the image is not to blame and is not replaced."""
    reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    return CannotRead(f"{what} cannot be read: {reason}. It is the disk, the network or memory, not the image")


def read_patiently(read: Callable[[], Read], name: Callable[[], str]) -> Read:
    """What `read` returns, tried again a few times over some seconds where its error may pass.

    Args:
        name: of what is read, asked for only where it fails.

    Raises:
        CannotRead: the error did not pass.
    """
    for wait in WAITS_SECONDS:
        try:
            return read()
        except Exception as error:
            if not is_passing(error):
                raise
            say_once(f"{_said(error)} while reading images; it is tried again for {sum(WAITS_SECONDS):.0f} s")
            time.sleep(wait)
    try:
        return read()
    except Exception as error:
        if not is_passing(error):
            raise
        raise cannot_read(name(), error) from error


def file_bytes(path: Path) -> bytes:
    """A file's bytes, read patiently.

    Raises:
        CannotRead: disk or network failed, and did so again.
        OSError: the file is not there, or not ours to read.
    """
    return read_patiently(path.read_bytes, lambda: str(path))


def _said(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__
