"""The checkpoint of a long probe: one file beside its result, removed once the result is written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from disco_zoo.core.checkpoint import load_checkpoint, save_checkpoint
from disco_zoo.errors import BadRunFolder


class ProbeCheckpoint:
    """The state of a probe after a whole epoch.

    Views and order are fixed by (seed, epoch), so a probe that goes on ends as an undisturbed one does.

    Args:
        path: the file.
        resume: go on with what it holds; without it the file must not exist.

    Raises:
        BadRunFolder: there is a state and `resume` is not set, or none and it is.
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        self.path, self.resume = path, resume
        if resume and not path.is_file():
            raise BadRunFolder(f"nothing to resume: {path} does not exist. Repeat the command without --resume")
        if not resume and path.exists():
            raise BadRunFolder(f"{path} holds a probe that was stopped. Add --resume to go on, or delete it")

    def load(self, key: Mapping[str, Any]) -> dict[str, Any] | None:
        """The state to go on with; None at the start.

        Args:
            key: plain values that fix the probe.

        Raises:
            BadRunFolder: it is the state of another probe, or damaged.
        """
        if not self.resume:
            return None
        stored = load_checkpoint(self.path)
        former, now = json.loads(stored["key"]), _plain(key)
        if former != now:
            different = sorted(name for name in former.keys() | now.keys() if former.get(name) != now.get(name))
            raise BadRunFolder(
                f"{self.path} holds another probe ({', '.join(different)} differ). "
                "Repeat the command that began it, or choose another --out"
            )
        state: dict[str, Any] = stored["state"]
        return state

    def save(self, key: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """Write the state atomically."""
        save_checkpoint(self.path, {"key": json.dumps(_plain(key)), "state": dict(state)})

    def remove(self) -> None:
        """Once the result is written."""
        self.path.unlink(missing_ok=True)


def _plain(key: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(dict(key), default=str))
    return plain
