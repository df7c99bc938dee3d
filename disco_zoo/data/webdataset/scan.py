"""What lies where in a webdataset shard: one pass over the headers of a .tar, in the order of its members.

Members that share a name up to the last dot make a sample, wherever in the shard they lie: an image, perhaps with a
label in `.cls` or `.json`. A name may have dots of its own (`v1.0003.png` and `v1.0003.cls`); what has no label belongs
to a shorter name where that is a sample's (`x.seg.png` beside `x.jpg` and `x.cls`).
"""

from __future__ import annotations

import contextlib
import json
import os
import posixpath
import re
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from disco_zoo.data.file_tree import tar_files
from disco_zoo.data.image_files import LeftOut, is_hidden, readable_suffixes
from disco_zoo.errors import BadData

BLOCK_BYTES = 512
MAX_IMAGE_BYTES = 2**32 - 1
NO_LABEL = -1


class Member(NamedTuple):
    """A file in a tar: where its content begins, and how many bytes it has."""

    name: str
    offset: int
    size: int


class Sample(NamedTuple):
    """An image and its label: a number, a word, `NO_LABEL` where the sample says so, None where it says nothing."""

    image: Member
    label: int | str | None


def samples(path: Path, *, with_labels: bool = True, left_out: LeftOut | None = None) -> Iterator[Sample]:
    """The samples of a shard, in its order; without labels no content is read, headers alone.

    Args:
        left_out: counts what is neither an image nor a label.

    Raises:
        BadData: the file is missing, cut short, damaged, or compressed.
    """
    try:
        file = path.open("rb") if with_labels else None
    except OSError as error:
        raise missing_shard(path, error) from error
    with file or contextlib.nullcontext():
        groups = _groups(
            _members(path, LeftOut()) if left_out is None else _counted(_members(path, left_out), left_out)
        )
        found = [(image, key, slot) for key, slots in groups.items() for slot in slots if (image := _image_of(slot))]
        for image, key, slot in sorted(found, key=lambda one: one[0].offset):
            shorter = [groups[name][0] for name in _shorter(key) if name in groups]
            if not _LABELS & slot.keys() and any(map(_image_of, shorter)):
                if left_out is not None:
                    left_out.suffixes[FURTHER] += 1
                continue
            if image.size > MAX_IMAGE_BYTES:
                raise BadData(f"{image.name} is larger than 4 GiB; that is no image. Leave it out")
            holder = next((one for one in (slot, *shorter) if _LABELS & one.keys()), None)
            label = None if file is None or holder is None else _label(holder, file.fileno())
            if left_out is not None and holder is not None and label is None:
                left_out.suffixes[NO_KEY] += 1
            yield Sample(image, label)


def folder_of(member: str) -> str:
    """The path of the folder that holds a member, by which images without other labels are classed; "" at the top."""
    return posixpath.dirname(posixpath.normpath(member)).lstrip("/")


def member_at(path: Path, offset: int) -> str:
    """The name in the header before the content at `offset`, or the place where there is no readable one.

    A hard link is so called by the file that it links to.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset - BLOCK_BYTES)
            return tarfile.TarInfo.frombuf(file.read(BLOCK_BYTES), "utf-8", "surrogateescape").name
    except (OSError, tarfile.TarError):
        return f"byte {offset}"


def missing_shard(path: Path, error: OSError) -> BadData:
    """The error for a shard that cannot be opened, with what to do."""
    return BadData(f"shard {path} cannot be read: {error.strerror or error}. Put it back, or index its folder again")


def _members(path: Path, left_out: LeftOut) -> Iterator[Member]:
    """The regular files of a tar, and the hard links to them."""
    try:
        with tarfile.open(path, "r:") as archive:
            for member, offset, size in tar_files(_headers(archive), left_out):
                yield Member(member.name, offset, size)
            _require_end(path, archive.offset)
    except tarfile.TarError as error:
        raise _damaged(path, str(error)) from error
    except OSError as error:
        raise missing_shard(path, error) from error


def _headers(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]
        yield member


def _require_end(path: Path, offset: int) -> None:
    """tarfile takes garbage, or nothing, for the end of a tar; an end is a block of zeros."""
    with path.open("rb") as file:
        file.seek(offset)
        block = file.read(BLOCK_BYTES)
    if block != bytes(BLOCK_BYTES):
        raise _damaged(path, f"it breaks off at byte {offset}")


def _damaged(path: Path, reason: str) -> BadData:
    return BadData(f"shard {path} is damaged, cut short or no plain .tar; copy or make it again. ({reason})")


_LABELS = {"cls", "json"}
FURTHER = "further images of a sample"
NO_KEY = '.json without "label"'


def _counted(members: Iterable[Member], left_out: LeftOut) -> Iterator[Member]:
    for member in members:
        if member.name.rpartition(".")[2].lower() not in _LABELS:
            left_out.counts(member.name)
        yield member


_Slot = dict[str, Member]


def _groups(members: Iterable[Member]) -> dict[str, list[_Slot]]:
    """Members by name without the ending, each a map from ending to member; a repeated name begins another one."""
    groups: dict[str, list[_Slot]] = {}
    for member in members:
        name, dot, ending = member.name.rpartition(".")
        if not dot or "/" in ending or is_hidden(member.name):
            continue
        slots = groups.setdefault(name, [])
        slot = next((slot for slot in slots if ending.lower() not in slot), None)
        if slot is None:
            slots.append(slot := {})
        slot[ending.lower()] = member
    return groups


def _image_of(slot: _Slot) -> Member | None:
    return next((member for ending, member in slot.items() if f".{ending}" in readable_suffixes()), None)


def _shorter(name: str) -> list[str]:
    """The name without its last dots, one after the other: a.b.c gives a.b and a."""
    folder, slash, base = name.rpartition("/")
    parts = base.split(".")
    return [folder + slash + ".".join(parts[:end]) for end in range(len(parts) - 1, 0, -1)]


def _label(slot: _Slot, file: int) -> int | str | None:
    """From the `.cls` member, else from the `.json` member's "label"."""
    if (member := slot.get("cls")) is not None:
        return _number_or_word(os.pread(file, member.size, member.offset).decode("utf-8", "replace").strip())
    member = slot["json"]
    try:
        found = json.loads(os.pread(file, member.size, member.offset))
    except ValueError:
        return None
    if not isinstance(found, dict) or "label" not in found:
        return None
    label = found["label"]
    if label is None or label != label:  # NaN
        return NO_LABEL
    return _number_or_word(str(label)) if isinstance(label, (int, str, float)) else None


_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.0+)?")


def _number_or_word(text: str) -> int | str:
    """A whole number, also written 3.0 but not 03 or 3e0; a negative one, "" and "nan" say that there is no label."""
    if text.lower() in ("", "nan"):
        return NO_LABEL
    if not _NUMBER.fullmatch(text):
        return text
    number = int(text.partition(".")[0])
    return NO_LABEL if text.startswith("-") else number if number < 2**31 else text
