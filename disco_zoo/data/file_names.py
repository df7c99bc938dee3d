"""File names that are not valid UTF-8: stored as text that maps back to the same bytes."""

from __future__ import annotations

import os
import re
from pathlib import Path

_ESCAPED = re.compile(rb"\\x([89a-f][0-9a-f])")


def as_text(name: str) -> str:
    """A name that any file and screen takes: bytes that are no UTF-8 become \\xe9; other names stay as they are."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def path_of_text(text: str) -> Path:
    """The file that `as_text` named: the one of this very name, or else of the bytes that it stands for."""
    path = Path(text)
    if path.exists() or "\\x" not in text:
        return path
    return Path(os.fsdecode(_ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), os.fsencode(text))))
