"""Processes that pause at a chosen point of their work, so that a signal finds them there on any machine.

What a killed process leaves depends on what it had written, not on the time: a test that chooses among the points
between its writes can hit all that a random moment can, and misses none because the machine was slow or fast.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from forked import Forked
from tiny_runs import subprocess_environment

_PAUSED = "paused\n"
_numbers = itertools.count(1)


def point() -> None:
    """In the process: a point of its work. At the one that the test chose, wait until the test lets it go on."""
    if next(_numbers) == int(os.environ["PAUSE_AT"]):
        print(_PAUSED, end="", flush=True)
        sys.stdin.readline()


def by_halves(write: Callable[[bytes], object], content: bytes) -> None:
    """In the process: write it with a point in the middle and one at the end."""
    middle = len(content) // 2
    for part in (content[:middle], content[middle:]):
        write(part)
        point()


def torn(write: Callable[[Path], object]) -> Callable[[Path], None]:
    """In the process: a writer of the same file, with a point where half of it is there and one at the end."""

    def write_torn(path: Path) -> None:
        write(path)
        content = path.read_bytes()
        with path.open("wb", buffering=0) as file:
            by_halves(file.write, content)

    return write_torn


def start_until(
    number: int, script: str, *arguments: object, folder: Path, environment: Mapping[str, str] | None = None
) -> Forked:
    """Run a script until it pauses at point `number`; a line on its standard input lets it go on."""
    environment = {**(environment or subprocess_environment()), "PAUSE_AT": str(number)}
    process = Forked([sys.executable, "-c", script, *map(str, arguments)], cwd=folder, env=environment)
    while line := process.stdout.readline():
        if line == _PAUSED:
            return process
    raise AssertionError(f"it never came to point {number}: {process.communicate()}")


def killed_at(
    number: int, script: str, *arguments: object, folder: Path, environment: Mapping[str, str] | None = None
) -> None:
    """Run a script until point `number` and kill it there."""
    process = start_until(number, script, *arguments, folder=folder, environment=environment)
    process.kill()
    process.communicate()
