"""Which files are images, by suffix, in folders, tars and shards; and file names that are not valid UTF-8."""

from __future__ import annotations

import functools
import os
import posixpath
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from disco_zoo.core.console import say_once

# Of photos and pictures. Pillow also registers .pdf, .mpg, .eps and the like, which it does not decode itself.
IMAGE_SUFFIXES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".webp",
    ".bmp",
    ".dib",
    ".tif",
    ".tiff",
    ".gif",
    ".avif",
    ".heic",
    ".heif",
    ".jp2",
    ".j2k",
    ".ppm",
    ".pgm",
    ".pbm",
    ".pnm",
    ".tga",
    ".qoi",
)
# Of archives, network storage, Windows and Python.
JUNK_FOLDERS = {
    "__MACOSX",
    "@eaDir",
    "#recycle",
    "@Recycle",
    "$RECYCLE.BIN",
    "System Volume Information",
    "lost+found",
    "__pycache__",
}
JUNK_FILES = {"thumbs.db", "desktop.ini"}
# What lies beside images and belongs there: lists, annotations, licences. Counted, and no cause for a line.
COMPANIONS = {".csv", ".html", ".json", ".jsonl", ".md", ".mat", ".npy", ".txt", ".tsv", ".xml", ".yaml", ".yml"}
SHOWN = 4


@functools.cache
def readable_suffixes() -> frozenset[str]:
    """Those of `IMAGE_SUFFIXES` that the Pillow on this machine decodes; a plugin (pillow-heif) may add some."""
    from PIL import Image

    Image.init()
    opened = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    return frozenset(IMAGE_SUFFIXES) & opened


def is_image_name(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in readable_suffixes()


def is_hidden(path: str) -> bool:
    """Whether a file or one of its folders is a tool's own: .ipynb_checkpoints, ._x.png, __MACOSX."""
    return any(part in JUNK_FOLDERS or (part.startswith(".") and part not in (".", "..")) for part in path.split("/"))


@dataclass
class LeftOut:
    """Files that were seen and are no part of a source.

    Attributes:
        suffixes: how many of each suffix are no images that can be read here.
        hidden: how many images a tool has hidden.
        links: how many images of a tar are links that cannot be followed in it.
    """

    suffixes: Counter[str] = field(default_factory=Counter)
    hidden: int = 0
    links: int = 0

    def counts(self, path: str) -> bool:
        """Whether a file (its path with slashes) is left out; it is then counted."""
        if is_image_name(path):
            self.hidden += is_hidden(path)
            return is_hidden(path)
        if not is_hidden(path) and posixpath.basename(path).lower() not in JUNK_FILES:
            self.suffixes[PurePosixPath(path).suffix.lower() or "without suffix"] += 1
        return True

    def facts(self) -> dict[str, int]:
        """Counts by suffix, of hidden images as "hidden", and of links as "links"."""
        others = {"hidden": self.hidden, "links": self.links}
        return {**dict(self.suffixes.most_common()), **{kind: count for kind, count in others.items() if count}}

    def say(self, name: str) -> None:
        """One line, where more is left out than what usually lies beside images."""
        parts = []
        strange = Counter({suffix: count for suffix, count in self.suffixes.items() if suffix not in COMPANIONS})
        if strange:
            listed = ", ".join(f"{count:,} {suffix}" for suffix, count in strange.most_common(SHOWN))
            rest = len(strange) - SHOWN
            parts.append(f"that are no images (Pillow): {listed}" + (f" and {rest} more kinds" if rest > 0 else ""))
        if self.hidden:
            parts.append(f"that are hidden: {self.hidden:,}")
        if self.links:
            parts.append(f"that are links to elsewhere: {self.links:,}")
        if parts:
            say_once(f"{name}: files left out {'; '.join(parts)}")


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
