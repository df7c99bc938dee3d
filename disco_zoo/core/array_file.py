"""Arrays that cost much to compute, kept in files and never mistaken for others.

An array is a `.npy` beside a `.json` that says what it was computed from. The array is written first, then the
facts, each whole or not at all: without complete facts nothing is trusted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from disco_zoo.core.files import write_atomically
from disco_zoo.errors import BadRunFolder

Key = Mapping[str, Any]


@dataclass(frozen=True)
class ArrayFile:
    """An array on disk.

    Attributes:
        array: memory-mapped, read-only.
        key: what it was computed from: plain values by name.
        facts: what else is worth knowing of it.
    """

    array: np.ndarray
    key: dict[str, Any]
    facts: dict[str, Any]


def kept_path(folder: Path, name: str, key: Key) -> Path:
    """Where the array of `key` lies: the name holds a digest of the key, so other keys have other files."""
    digest = hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()
    return folder / f"{name}_{digest[:16]}.npy"


def keep_array(path: Path, key: Key, write: Callable[[Path], Mapping[str, Any]]) -> None:
    """Let `write` fill a `.npy` and return its facts, then keep both at `path`.

    Raises:
        BadRunFolder: no space or no permission.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadRunFolder(f"cannot create {path.parent}: {error.strerror}. Choose another --out") from error
    facts: dict[str, Any] = {}
    write_atomically(path, lambda partial: facts.update(write(partial)))
    text = json.dumps({"key": dict(key), "facts": facts}, indent=1, ensure_ascii=False)
    write_atomically(_facts_path(path), lambda partial: partial.write_text(text, encoding="utf-8"))


def open_kept(path: Path) -> ArrayFile | None:
    """The array at `path`, or None where there is none, or only a part of one."""
    try:
        known = json.loads(_facts_path(path).read_text(encoding="utf-8"))
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        return ArrayFile(array, dict(known["key"]), dict(known["facts"]))
    except (OSError, ValueError, LookupError, TypeError, EOFError):  # missing, cut short, or no such file at all
        return None


def open_kept_as(path: Path, key: Key) -> ArrayFile | None:
    """As `open_kept`, and None where the array was computed from something else than `key`."""
    kept = open_kept(path)
    return kept if kept is not None and kept.key == json.loads(json.dumps(dict(key))) else None


def _facts_path(path: Path) -> Path:
    return path.with_suffix(".json")
