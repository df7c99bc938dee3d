"""What sets of images with boxes or masks are, as `look_facts` says it of other sources."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from disco_zoo.core.console import say_once
from disco_zoo.data.dataset import Origin
from disco_zoo.data.image_files import LeftOut
from disco_zoo.data.image_list import FileListSource
from disco_zoo.data.pixels.bit_depth import ValueRanges
from disco_zoo.data.summary import look_facts, summary_of

UNLISTED = "images that nothing lists"


@dataclass(frozen=True)
class Listed:
    """A set whose images something lists.

    Attributes:
        files: its images.
        split: "train" or "test"; `split_from` says what made it so.
        classes: how many; `labels_from` says who names them.
        objects: what is known beside classes, such as boxes or masks, and how many.
        notes: what was guessed or mended.
    """

    name: str
    files: Sequence[Path]
    split: str
    split_from: str
    classes: int
    labels_from: str
    objects: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()


def looks_of(sets: Sequence[Listed], ranges: ValueRanges) -> dict[str, dict[str, Any]]:
    """The facts of each set by its split, said in a line each.

    Files beside the images count as left out, once: those of another kind, hidden ones, and images of no set.

    Args:
        ranges: what is white in deep images of all sets together.
    """
    listed = {file.resolve() for one in sets for file in one.files}
    seen: set[Path] = set()
    looks = {}
    for one in sets:
        source = FileListSource(one.name, one.files)
        source.take_ranges(ranges)
        source.split = one.split
        folders = {file.resolve().parent for file in one.files} - seen
        seen |= folders
        source.origin = Origin(one.split_from, one.labels_from, _left_out(folders, listed), tuple(one.notes))
        facts = {**look_facts(source), "classes": one.classes, "objects": dict(one.objects)}
        say_once(summary_of(facts))
        looks[one.split] = facts
    _say_shared(sets)
    return looks


def _say_shared(sets: Sequence[Listed]) -> None:
    trained = {file.resolve() for one in sets if one.split == "train" for file in one.files}
    for one in sets:
        shared = sum(file.resolve() in trained for file in one.files) if one.split == "test" else 0
        if shared:
            say_once(
                f"{one.name}: {shared:,} of the {len(one.files):,} test images are training images, too; figures say "
                "nothing of other images. Give others with --eval-data"
            )


def _left_out(folders: Iterable[Path], listed: set[Path]) -> dict[str, int]:
    left_out, unlisted = LeftOut(), 0
    for folder in folders:
        with os.scandir(folder) as entries:
            files = [Path(entry.path) for entry in entries if entry.is_file()]
        unlisted += sum(not left_out.counts(file.name) and file.resolve() not in listed for file in files)
    return {**left_out.facts(), **({UNLISTED: unlisted} if unlisted else {})}
