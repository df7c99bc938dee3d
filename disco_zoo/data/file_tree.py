"""The files of a folder or a tar, all of them, in one order whatever the disk or the archive lists first."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from disco_zoo.core.console import say_once
from disco_zoo.data.image_files import LeftOut, is_hidden, is_image_name
from disco_zoo.data.passing_errors import cannot_read, is_passing
from disco_zoo.errors import BadData, shown


def natural_order(name: str) -> tuple[list[str | int], str]:
    """The key of timm's order: 2 before 10, no difference of case; what ties in it (01 and 1, A and a) by itself."""
    parts = re.split(r"(\d+)", name.lower())
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def files_below(folder: Path) -> Iterator[str]:
    """Paths of the files below a folder, relative to it and with slashes; also links that lead nowhere.

    Links to folders are followed, but not to one that holds the link, which is said. What a tool has hidden is left
    out where it may not be read.

    Raises:
        BadData: a folder may not be read.
        CannotRead: disk or network failed.
    """
    return _files_below(str(folder), "", (os.path.realpath(folder),))


def images_below(folder: Path) -> Iterator[str]:
    """As `files_below`, image files that no tool has hidden."""
    return (path for path in files_below(folder) if is_image_name(path) and not is_hidden(path))


def _files_below(top: str, inside: str, places: tuple[str, ...]) -> Iterator[str]:
    """As `files_below`, of a folder `inside` it; `places` are this one and those from which links led here."""
    try:
        entries = listed(Path(top, inside))
    except BadData:
        if is_hidden(inside):
            return
        raise
    for entry in entries:
        path = f"{inside}/{entry.name}" if inside else entry.name
        if not is_folder(entry):
            yield path
            continue
        if not entry.is_symlink():
            yield from _files_below(top, path, (*places[:-1], os.path.join(places[-1], entry.name)))
            continue
        target = os.path.realpath(entry.path)
        if any(_holds(target, place) for place in places):
            say_once(f"{top}: {shown(path)} is a link to {shown(target)}, which holds it, and is not followed")
        else:
            yield from _files_below(top, path, (*places, target))


def _holds(outer: str, inner: str) -> bool:
    return inner == outer or inner.startswith(os.path.join(outer, ""))


def listed(folder: Path | str) -> list[os.DirEntry[str]]:
    """What lies in a folder, by name.

    Raises:
        BadData: it may not be read.
        CannotRead: disk or network failed.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        if is_passing(error):
            raise cannot_read(str(folder), error) from error
        raise BadData(
            f"{shown(str(folder))} cannot be listed: {error.strerror}. Make it readable, or take it out of the data"
        ) from error


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one; not where it leads in a circle or to where nobody may look."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def size_of(path: Path) -> int:
    """Of a file, in bytes; -1 where there is none, as behind a link that leads nowhere."""
    return path.stat().st_size if path.is_file() else -1


def images_of_folder(folder: Path) -> tuple[list[str], LeftOut]:
    """Paths below a folder, in `natural_order`, and what is left out; see `files_below`."""
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
        for member, offset, size in tar_files(tar, left_out):
            if not member.name.lower().endswith(".tar") or member.islnk():
                if not left_out.counts(member.name):
                    outer.append(TarImage(member.name, "", offset, size))
                continue
            with tarfile.open(fileobj=tar.extractfile(member), mode="r|") as child:
                inner += [
                    TarImage(image.name, member.name, offset + inner_offset, size)
                    for image, inner_offset, size in tar_files(child, left_out)
                    if not left_out.counts(image.name)
                ]
    return sorted([*inner, *outer], key=lambda image: natural_order(image.name)), left_out


def tar_files(members: Iterable[tarfile.TarInfo], left_out: LeftOut) -> Iterator[tuple[tarfile.TarInfo, int, int]]:
    """The files of a tar, and hard links to earlier ones; each with offset and size of its content, in bytes.

    Other links are counted where they are called as images are.
    """
    seen: dict[str, tuple[int, int]] = {}
    for member in members:
        place = (member.offset_data, member.size) if member.isfile() else None
        if member.islnk():
            place = seen.get(member.linkname)
        if place is not None:
            seen[member.name] = place
            yield member, *place
        elif (member.islnk() or member.issym()) and is_image_name(member.name):
            left_out.links += 1
