"""The files of a folder or a tar, all of them, in one order whatever the disk or the archive lists first."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from disco_zoo.data.image_files import LeftOut


def natural_order(name: str) -> tuple[list[str | int], str]:
    """The key of timm's order: 2 before 10, no difference of case; what is equal in it (01 and 1, A and a) by itself."""
    parts = re.split(r"(\d+)", name.lower())
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def files_below(folder: Path) -> Iterator[str]:
    """Paths of the files below a folder, relative to it and with slashes; links to folders are followed."""
    for root, _, files in os.walk(folder, followlinks=True):
        for file in files:
            yield os.path.relpath(os.path.join(root, file), folder).replace(os.sep, "/")


def images_of_folder(folder: Path) -> tuple[list[str], LeftOut]:
    """Paths below a folder, in `natural_order`, and what is left out; links to folders are followed."""
    left_out = LeftOut()
    found = (path for path in files_below(folder) if not left_out.counts(path))
    return [path.replace("/", os.sep) for path in sorted(found, key=natural_order)], left_out


@dataclass(frozen=True)
class TarImage:
    """An image in a .tar, or in a .tar inside it.

    Attributes:
        name: of the member; `inside` is the name of the inner .tar, "" for none.
        offset, size: of its bytes in the outer file.
    """

    name: str
    inside: str
    offset: int
    size: int


def images_of_tar(path: Path) -> tuple[list[TarImage], LeftOut]:
    """The images of a .tar, in `natural_order` (those of inner tars first among equals), and what is left out.

    Raises:
        tarfile.TarError, OSError, EOFError: it is damaged, or no plain .tar.
    """
    left_out = LeftOut()
    inner: list[TarImage] = []
    outer: list[TarImage] = []
    with tarfile.open(path, mode="r|") as tar:
        for member in _files(tar):
            if not member.name.lower().endswith(".tar"):
                if not left_out.counts(member.name):
                    outer.append(TarImage(member.name, "", member.offset_data, member.size))
                continue
            with tarfile.open(fileobj=tar.extractfile(member), mode="r|") as child:
                inner += [
                    TarImage(image.name, member.name, member.offset_data + image.offset_data, image.size)
                    for image in _files(child)
                    if not left_out.counts(image.name)
                ]
    return sorted([*inner, *outer], key=lambda image: natural_order(image.name)), left_out


def _files(tar: tarfile.TarFile) -> Iterable[tarfile.TarInfo]:
    return (member for member in tar if member.isfile())
