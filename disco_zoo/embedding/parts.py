"""The parts of an embedding that is not finished: a folder beside it, claimed by one command at a time."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from disco_zoo.core.array_file import ArrayFile, keep_array, open_kept_as
from disco_zoo.errors import BadRunFolder


class Parts:
    """Numbered parts, each whole or not there.

    Args:
        out: the file they will make; they lie in `OUT.parts`.
        key: all that decides them, as plain values. Parts with another key are another's.
        count: how many there will be.
    """

    def __init__(self, out: Path, key: Mapping[str, Any], count: int) -> None:
        self.out, self.folder = out, out.with_name(f"{out.name}.parts")
        self.key, self.count = dict(key), count

    @contextlib.contextmanager
    def claimed(self, resume: bool) -> Iterator[None]:
        """Hold the folder: with `resume` one that this very work began, else a new one.

        Raises:
            BadRunFolder: it is another's, in use, not to be written, or not as `resume` says.
        """
        begun = self.folder.is_dir() and any(self.folder.glob("*.json"))
        if begun and not resume:
            done = sum(self.get(number) is not None for number in range(self.count))
            raise BadRunFolder(
                f"{self.out} was begun and stopped: {done} of its {self.count} parts are in {self.folder}. "
                "Add --resume to go on, or delete it"
            )
        if resume and not self.folder.is_dir():
            raise BadRunFolder(f"{self.out} has nothing to resume. Repeat the command without --resume")
        lock = FileLock(self.folder / ".lock")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout as error:
            raise BadRunFolder(f"another command is at {self.folder}. Wait, or choose another --out") from error
        except OSError as error:
            raise BadRunFolder(f"cannot write to {self.folder}: {error.strerror}. Choose another --out") from error
        try:
            if begun and all(self.get(number) is None for number in range(self.count)):
                raise BadRunFolder(
                    f"{self.folder} was begun by another model, of other images or with other settings. "
                    "Repeat the command that began it, or choose another --out"
                )
            yield
        finally:
            lock.release()

    def get(self, number: int) -> ArrayFile | None:
        """The rows of a part, with facts `kept` (image numbers of the rows) and `unreadable`; None if not made."""
        return open_kept_as(self._path(number), self._key(number))

    def engine(self) -> str | None:
        """What computed the rows there are, with its version; None without a part."""
        parts = (self.get(number) for number in range(self.count))
        return next((part.facts.get("engine", "torch") for part in parts if part is not None), None)

    def keep(
        self, number: int, rows: np.ndarray, kept: list[int], unreadable: Mapping[int, str], engine: str = "torch"
    ) -> None:
        """Store rows (n, D) of the images `kept`, computed by `engine`."""

        def write(partial: Path) -> dict[str, Any]:
            with partial.open("wb") as file:
                np.save(file, rows, allow_pickle=False)
            messages = {str(index): text for index, text in unreadable.items()}
            return {"kept": kept, "unreadable": messages, "engine": engine}

        keep_array(self._path(number), self._key(number), write)

    def remove(self) -> None:
        """Delete the folder, if it holds parts of this work."""
        if any(self.get(number) is not None for number in range(self.count)):
            shutil.rmtree(self.folder)

    def _path(self, number: int) -> Path:
        return self.folder / f"part_{number:06d}.npy"

    def _key(self, number: int) -> dict[str, Any]:
        return {**self.key, "part": number}
