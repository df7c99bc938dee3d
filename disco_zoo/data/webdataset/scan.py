"""What lies where in a webdataset shard: one pass over the headers of a .tar, in the order of its members.

Members that share a name up to the first dot make a sample: an image, perhaps with a label in `.cls` or `.json`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from disco_zoo.data.image_files import is_hidden, is_image_name, readable_suffixes
from disco_zoo.errors import BadData

BLOCK_BYTES = 512
MAX_IMAGE_BYTES = 2**32 - 1


class Member(NamedTuple):
    """A file in a tar: where its content begins, and how many bytes it has."""

    name: str
    offset: int
    size: int


class Sample(NamedTuple):
    """An image and its label: a class number, a word, or None where the sample names none."""

    image: Member
    label: int | str | None


def samples(path: Path, *, with_labels: bool = True) -> Iterator[Sample]:
    """The samples of a shard, in its order; without labels no content is read, headers alone.

    Raises:
        BadData: the file is missing, cut short, damaged, or compressed.
    """
    try:
        file = path.open("rb") if with_labels else None
    except OSError as error:
        raise missing_shard(path, error) from error
    with file or contextlib.nullcontext():
        for _, group in itertools.groupby(_members(path), key=lambda member: _split_name(member.name)[0]):
            yield from _samples_of([*group], file)


def folder_of(member: str) -> str:
    """The folder that holds a member, by which images without other labels are classed; empty at the top."""
    return os.path.basename(os.path.dirname(member))


def member_at(path: Path, offset: int) -> str:
    """The name in the header before the content at `offset`, or the place where there is no readable one."""
    try:
        with path.open("rb") as file:
            file.seek(offset - BLOCK_BYTES)
            return tarfile.TarInfo.frombuf(file.read(BLOCK_BYTES), "utf-8", "surrogateescape").name
    except (OSError, tarfile.TarError):
        return f"byte {offset}"


def missing_shard(path: Path, error: OSError) -> BadData:
    """The error for a shard that cannot be opened, with what to do."""
    return BadData(f"shard {path} cannot be read: {error.strerror or error}. Put it back, or index its folder again")


def _members(path: Path) -> Iterator[Member]:
    """The regular files of a tar."""
    try:
        with tarfile.open(path, "r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]
                if member.isreg():
                    yield Member(member.name, member.offset_data, member.size)
            _require_end(path, archive.offset)
    except tarfile.TarError as error:
        raise _damaged(path, str(error)) from error
    except OSError as error:
        raise missing_shard(path, error) from error


def _require_end(path: Path, offset: int) -> None:
    """tarfile takes garbage, or nothing, for the end of a tar; an end is a block of zeros."""
    with path.open("rb") as file:
        file.seek(offset)
        block = file.read(BLOCK_BYTES)
    if block != bytes(BLOCK_BYTES):
        raise _damaged(path, f"it breaks off at byte {offset}")


def _damaged(path: Path, reason: str) -> BadData:
    return BadData(f"shard {path} is damaged, cut short or no plain .tar; copy or make it again. ({reason})")


def _split_name(name: str) -> tuple[str, str]:
    """The name up to the first dot of the file's own name, and the lower-case rest, as webdataset groups members."""
    folder, _, base = name.rpartition("/")
    stem, _, rest = base.partition(".")
    return f"{folder}/{stem}", rest.lower()


def _samples_of(group: list[Member], file: BinaryIO | None) -> Iterator[Sample]:
    rests = [_split_name(member.name)[1] for member in group]
    images = [member for member, rest in zip(group, rests, strict=True) if f".{rest}" in readable_suffixes()]
    # "x.jpg" beside "x.seg.png" is the image; "photo.1.jpg" alone is one, too.
    images = images[:1] or [member for member in group if is_image_name(member.name)]
    images = [image for image in images if not is_hidden(image.name)]
    if not images:
        return
    label = None if file is None else _label(dict(zip(rests, group, strict=True)), file.fileno())
    for image in images:
        if image.size > MAX_IMAGE_BYTES:
            raise BadData(f"{image.name} is larger than 4 GiB; that is no image. Leave it out")
        yield Sample(image, label)


def _label(members: dict[str, Member], file: int) -> int | str | None:
    """From the `.cls` member, else from the `.json` member's "label"; a negative number says that there is none."""
    if (member := members.get("cls")) is not None:
        return _number_or_word(os.pread(file, member.size, member.offset).decode("utf-8", "replace").strip())
    if (member := members.get("json")) is None:
        return None
    try:
        found = json.loads(os.pread(file, member.size, member.offset))
    except ValueError:
        return None
    label = found.get("label") if isinstance(found, dict) else None
    return _number_or_word(str(label)) if isinstance(label, (int, str)) else None


def _number_or_word(text: str) -> int | str | None:
    try:
        number = int(text)
    except ValueError:
        return text or None
    return number if 0 <= number < 2**31 else None
