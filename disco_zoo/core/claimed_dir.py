"""A folder that one process at a time writes a run into: its lock, and the files that every run has."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from disco_zoo.core.files import write_atomically
from disco_zoo.errors import BadRunFolder

CHECKPOINT, FACTS = "checkpoint.pt", "run.json"


class ClaimedFolder:
    """What the folders of all kinds of runs share; a kind of run says what it goes on with, see `_acquire_if`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path / ".lock")

    def _acquire(self) -> None:
        """Make the folder and lock it.

        Raises:
            BadRunFolder: in use by another process, or not writable.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise BadRunFolder(f"{self.path} is in use by another run. Choose another folder with --out") from error
        except OSError as error:
            raise BadRunFolder(
                f"cannot write to {self.path}: {error.strerror}. Choose another folder with --out"
            ) from error

    def _acquire_if(self, fits: Callable[[], None]) -> None:
        """Create and lock the folder; call `fits`, which inspects it, and unlock it where that raises."""
        self._acquire()
        try:
            fits()
        except BaseException:
            self.close()
            raise

    @property
    def checkpoint(self) -> Path:
        return self.path / CHECKPOINT

    @property
    def figures(self) -> Path:
        folder = self.path / "figures"
        folder.mkdir(exist_ok=True)
        return folder

    def write_text(self, name: str, text: str) -> None:
        write_atomically(self.path / name, lambda partial: partial.write_text(text, encoding="utf-8"))

    def write_json(self, name: str, values: Mapping[str, Any]) -> None:
        write_json(self.path / name, values)

    def read_json(self, name: str) -> dict[str, Any]:
        return read_json(self.path / name)

    def close(self) -> None:
        self._lock.release()


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file of a run folder atomically."""
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of a run folder; empty where there is none.

    Raises:
        BadRunFolder: it is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise BadRunFolder(f"{path} is damaged. Choose another --out") from error


def without_checkpoint(path: Path) -> bool:
    """Whether a folder holds a trained run that cannot go on; a start, of no steps, is none."""
    return not (path / CHECKPOINT).is_file() and (facts := read_json(path / FACTS)) != {} and facts.get("steps") != 0


def holds_run(path: Path) -> bool:
    return (path / CHECKPOINT).is_file() or without_checkpoint(path)


def already_holds_a_run(path: Path) -> BadRunFolder:
    """The error for a new run in the folder of another run."""
    return BadRunFolder(f"{path} already holds a run. Add --resume to go on, or choose another --out")
