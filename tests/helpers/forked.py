"""Processes for tests that need several: forks of a server that has imported torch and this package once.

A new interpreter computes for seconds before a toy run begins, several times as long as the run. Tests of what happens
at import, and of the installed command, still start new ones with `subprocess`. Curves of a toy run take twice as long
as its steps: the figure is made here as everywhere, but its PNG is one pixel. Tests in one process draw the real ones.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import multiprocessing
import os
import runpy
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Mapping
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any
from unittest import mock

import torch
from PIL import Image
from tiny_runs import subprocess_environment

# What toy runs import while they run, too.
PRELOADED = [
    "tiny_runs",
    "method_runs",
    "disco_zoo.cli.training.train",
    "disco_zoo.cli.training.cache",
    "disco_zoo.data.formats.parquet",
    "disco_zoo.training.monitoring",
    "accelerate",
    "sklearn.linear_model",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "PIL.JpegImagePlugin",
    "pyarrow.pandas_compat",
    "pytest",
]


@functools.cache
def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with mock.patch.dict(os.environ, subprocess_environment()):  # read at import: the number of threads
        forkserver.ensure_running()
    return context


def run_pair(work: Callable[[int, str], None], folder: Path) -> None:
    """Call `work(rank, folder)` in two processes and wait for both; an error in one of them is one here."""
    torch.multiprocessing.start_processes(work, (str(folder),), nprocs=2, start_method=_context().get_start_method())


class Forked:
    """As `subprocess.Popen(command, text=True)` with three pipes, for `python -c CODE` and `python -m MODULE`.

    `env` is by default that of all processes of the tests.
    """

    def __init__(
        self,
        command: list[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        start_new_session: bool = False,
    ) -> None:
        assert command[0] == sys.executable
        stdin, stdout, stderr = (_context().Pipe(duplex=False) for _ in range(3))
        theirs = (stdin[0], stdout[1], stderr[1])
        environment = dict(env or subprocess_environment())
        settings = (str(cwd or Path.cwd()), environment, start_new_session, multiprocessing.get_start_method())
        self._process = _context().Process(target=_become, args=(command[1:], *settings, *theirs))
        self._process.start()
        self.pid: int = self._process.pid
        for end in theirs:
            end.close()
        self.stdin = _opened(stdin[1], "w")
        self.stdout, self.stderr = _opened(stdout[0], "r"), _opened(stderr[0], "r")

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode  # type: ignore[no-any-return]

    def poll(self) -> int | None:
        return self.returncode

    def kill(self) -> None:
        self._process.kill()

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def communicate(self, written: str = "", timeout: float | None = None) -> tuple[str, str]:
        """Write it, and wait for the end of both outputs and of the process.

        Raises:
            subprocess.TimeoutExpired: an output did not end within `timeout` seconds.
        """
        with contextlib.suppress(BrokenPipeError), self.stdin:
            self.stdin.write(written)
        found = ["", ""]

        def read(number: int, stream: IO[str]) -> None:
            with stream:
                found[number] = stream.read()

        readers = [
            threading.Thread(target=read, args=pair, daemon=True) for pair in enumerate((self.stdout, self.stderr))
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(timeout)
            if reader.is_alive():
                raise subprocess.TimeoutExpired("a forked process", timeout or 0)
        self._process.join(timeout)
        return found[0], found[1]


def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run(command, text=True, capture_output=True)`."""
    process = Forked(command, **options)
    stdout, stderr = process.communicate()
    assert process.returncode is not None
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def _opened(end: Connection, mode: str) -> IO[str]:
    with end:
        return open(os.dup(end.fileno()), mode, encoding="utf-8")


def _become(
    command: list[str],
    folder: str,
    environment: dict[str, str],
    session: bool,
    start_method: str,
    *streams: Connection,
) -> None:
    """In the fork: what `python COMMAND` does."""
    for number, stream in enumerate(streams):
        with stream:
            os.dup2(stream.fileno(), number)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    if session:
        os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    multiprocessing.set_start_method(start_method, force=True)  # for workers; a fork of this server has the server's
    importlib.import_module("matplotlib.backends.backend_agg").FigureCanvasAgg.print_figure = _one_pixel
    how, what, *rest = command
    sys.argv = [how, *rest]
    if how == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(what, vars(main))


def _one_pixel(canvas: object, path: str, **_: object) -> None:
    Image.new("L", (1, 1)).save(path, format="png")
