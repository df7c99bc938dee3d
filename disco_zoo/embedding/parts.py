"""The parts of an embedding that is not finished: a folder beside it, claimed by one command, or by shards of one.

Locks in the folder: `.lock` is held by a command that makes all parts, `.shard_I_of_N.lock` by a shard, and
`.turn.lock` for moments: while one of them claims the folder, chooses an engine, or joins the parts.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from disco_zoo.core.array_file import ArrayFile, keep_array, open_kept_as
from disco_zoo.core.files import write_atomically
from disco_zoo.errors import BadRunFolder

WAIT_SECONDS = 600.0  # for another process that chooses an engine or joins the parts


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
        begun = self._is_begun()
        if begun and not resume:
            done = self.count - len(self.missing())
            raise BadRunFolder(
                f"{self.out} was begun and stopped: {done} of its {self.count} parts are in {self.folder}. "
                "Add --resume to go on, or delete it"
            )
        if resume and not self.folder.is_dir():
            raise BadRunFolder(f"{self.out} has nothing to resume. Repeat the command without --resume")
        with self._claim(".lock", unless_held=".shard_*.lock"):
            yield

    @contextlib.contextmanager
    def shared(self, shard: int, shards: int) -> Iterator[None]:
        """Hold one shard of the folder, beside the other shards of the same work.

        Raises:
            BadRunFolder: it is another's, in use by this very shard or by a whole command, or not to be written.
        """
        with self._claim(f".shard_{shard}_of_{shards}.lock", unless_held=".lock"):
            yield

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until no other process is at a step that one at a time takes."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._acquire(".turn.lock", WAIT_SECONDS).release)
            yield

    @contextlib.contextmanager
    def _claim(self, name: str, unless_held: str) -> Iterator[None]:
        """Hold a lock from a moment in which nobody holds any of those that match `unless_held`."""
        with contextlib.ExitStack() as stack:
            with self.turn():
                stack.callback(self._acquire(name).release)
                for other in self.folder.glob(unless_held):
                    self._acquire(other.name).release()
            if self._is_begun() and len(self.missing()) == self.count:
                raise BadRunFolder(
                    f"{self.folder} was begun by another model, of other images or with other settings. "
                    "Repeat the command that began it, or choose another --out"
                )
            yield

    def _acquire(self, name: str, timeout_seconds: float = 0) -> FileLock:
        lock = FileLock(self.folder / name)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=timeout_seconds)
        except Timeout as error:
            raise BadRunFolder(f"another command is at {self.folder}. Wait, or choose another --out") from error
        except OSError as error:
            raise BadRunFolder(f"cannot write to {self.folder}: {error.strerror}. Choose another --out") from error
        return lock

    def _is_begun(self) -> bool:
        return any(self.folder.glob("part_*.json"))

    def missing(self) -> list[int]:
        """The numbers of the parts that are not made."""
        return [number for number in range(self.count) if self.get(number) is None]

    def get(self, number: int) -> ArrayFile | None:
        """The rows of a part, with facts `kept` (image numbers of the rows) and `unreadable`; None if not made."""
        return open_kept_as(self._path(number), self._key(number))

    def engine(self) -> str | None:
        """What computes the rows, with its version: of the parts there are, else as noted; None for neither."""
        parts = (self.get(number) for number in range(self.count))
        made = next((part.facts.get("engine", "torch") for part in parts if part is not None), None)
        if made is not None:
            return str(made)
        try:
            noted = json.loads(self._engine_note.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # none, or cut short: it is chosen again
            return None
        return str(noted["engine"]) if noted.get("key") == self.key else None

    def note_engine(self, engine: str) -> None:
        """Let the other shards compute by the same engine."""
        text = json.dumps({"key": self.key, "engine": engine})
        write_atomically(self._engine_note, lambda partial: partial.write_text(text, encoding="utf-8"))

    @property
    def _engine_note(self) -> Path:
        return self.folder / "engine.json"

    def keep(
        self,
        number: int,
        rows: np.ndarray,
        kept: list[int],
        unreadable: Mapping[int, str],
        engine: str = "torch",
        reduced: int = 0,
    ) -> None:
        """Store rows (n, D) of the images `kept`, computed by `engine`; `reduced` were decoded at reduced size."""

        def write(partial: Path) -> dict[str, Any]:
            with partial.open("wb") as file:
                np.save(file, rows, allow_pickle=False)
            messages = {str(index): text for index, text in unreadable.items()}
            return {"kept": kept, "unreadable": messages, "engine": engine, "reduced": reduced}

        keep_array(self._path(number), self._key(number), write)

    def remove(self) -> None:
        """Delete the folder, if it holds parts of this work, or nobody's."""
        if self.folder.is_dir() and (not self._is_begun() or len(self.missing()) < self.count):
            shutil.rmtree(self.folder)

    def _path(self, number: int) -> Path:
        return self.folder / f"part_{number:06d}.npy"

    def _key(self, number: int) -> dict[str, Any]:
        return {**self.key, "part": number}
