"""A forked process that is killed at a chosen point of its writing: cheap enough for hundreds of kills.

Points lie around each file that is written whole: before its bytes are on disk, when only half of them are, before
and after its name is given.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from disco_zoo.core import files


def ends_by_kill(point: int, work: Callable[[], Any]) -> bool:
    """Run `work` in a fork that SIGKILLs itself at point number `point`; whether it came so far.

    An error of the work is a failure of the test, and raised as one.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _arm(point)
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
        return True
    assert os.WEXITSTATUS(status) == 0, "the work itself failed; its traceback is above"
    return False


def _arm(point: int) -> None:
    """In the fork: from now on it dies at that point."""
    numbers = itertools.count(1)
    replace, write_whole = Path.replace, files.os.fsync

    def here(then: Callable[[], object] = lambda: None) -> None:
        if next(numbers) == point:
            then()
            os.kill(os.getpid(), signal.SIGKILL)

    def fsync(descriptor: int) -> None:
        here()
        here(lambda: os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2))
        write_whole(descriptor)

    def replaced(self: Path, target: Any) -> Path:
        here()
        final = replace(self, target)
        here()
        return final

    files.os.fsync = fsync
    Path.replace = replaced  # type: ignore[method-assign, assignment]
