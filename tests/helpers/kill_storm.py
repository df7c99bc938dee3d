"""A forked process that is killed at a chosen point of its writing: cheap enough for hundreds of kills.

Points lie around all that changes what is on a disk: before the bytes of a file are safe and when only half of them
are, before and after a name is given or taken away, around copies, and where a file is made longer or shorter; and,
where a work talks to a server, before a request goes out and after its answer has come.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub.utils import get_session

Work = Callable[[], Any]
# What changes a disk, with a point before and one after.
AROUND: Sequence[tuple[Any, str]] = (
    (Path, "replace"),
    (Path, "rename"),
    (Path, "write_text"),
    (os, "truncate"),
    (os, "posix_fallocate"),
    (shutil, "copyfile"),
    (shutil, "rmtree"),
)


def ends_by_kill(point: int, work: Work) -> bool:
    """Run `work` in a fork that SIGKILLs itself at point number `point`; whether it came so far.

    An error of the work is a failure of the test, and raised as one.
    """
    return _forked(lambda: _arm(point), work) is None


def count_points(work: Work) -> int:
    """Run `work` to its end in a fork, and count the points that it passes."""
    reader, writer = os.pipe()
    passed = 0

    def count(then: Callable[[], object] | None = None) -> None:
        nonlocal passed
        passed += 1

    def counted() -> None:
        work()
        os.write(writer, str(passed).encode())

    try:
        assert _forked(lambda: _hook(count), counted) == 0
        return int(os.read(reader, 32))
    finally:
        os.close(reader)
        os.close(writer)


def _forked(before: Callable[[], None], work: Work) -> int | None:
    """Run both in a fork; 0 where it ended well, None where it was killed."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            before()
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return None
    assert os.WEXITSTATUS(status) == 0, "the work itself failed; its traceback is above"
    return 0


def _arm(point: int) -> None:
    """In the fork: from now on it dies at that point."""
    numbers = itertools.count(1)

    def here(then: Callable[[], object] = lambda: None) -> None:
        if next(numbers) == point:
            then()
            os.kill(os.getpid(), signal.SIGKILL)

    _hook(here)


def _hook(here: Callable[..., None]) -> None:
    """In the fork: call `here` at each point, with what is to be done first where a kill leaves half a file."""
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        here()
        size = os.fstat(descriptor).st_size
        if size:
            here(lambda: os.ftruncate(descriptor, size // 2))
        sync(descriptor)

    os.fsync = fsync
    for holder, name in [*AROUND, (type(get_session()), "send")]:
        if hasattr(holder, name):
            setattr(holder, name, _surrounded(getattr(holder, name), here))


def _surrounded(former: Callable[..., Any], here: Callable[..., None]) -> Callable[..., Any]:
    def surrounded(*arguments: Any, **options: Any) -> Any:
        here()
        result = former(*arguments, **options)
        here()
        return result

    return surrounded
