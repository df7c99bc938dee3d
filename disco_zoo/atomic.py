"""A file written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def write_whole(path: Path, write: Callable[[Path], object], name: Callable[[Path], Path] | None = None) -> Path:
    """Let `write` fill a hidden neighbour of `path`, then rename it into place: a reader sees the old file or the new.

    Args:
        path: where the file goes.
        write: fills the path it is given.
        name: gives the final path once the neighbour is written, where its content decides; None for `path`.

    Returns:
        The final path.

    Raises:
        OSError: what the system said; the old file is untouched and the neighbour gone.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        write(partial)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())  # or a power cut could leave the name without the bytes
        final = name(partial) if name else path
        partial.replace(final)
    finally:
        partial.unlink(missing_ok=True)
    return final
