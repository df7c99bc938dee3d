"""Images that lie beside the folders of splits and belong to none: what a class folder called "train" hides is said."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from disco_zoo.core.console import say_once
from disco_zoo.data.image_files import is_hidden, is_image_name
from disco_zoo.data.split_files import SYNONYMS, names_of_split, subfolders

SHOWN = 3


def folders_beside(top: Path) -> tuple[list[str], list[str]]:
    """Names of the subfolders that are called as splits are, and of others that hold images."""
    names = subfolders(top)
    splits = _splits(names)
    return splits, [name for name in names if name not in splits and _holds_an_image(top / name)] if splits else []


def names_beside(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """The same of the names of folders that hold images, as in a tar; "" is no folder."""
    there = sorted({*names} - {""})
    splits = _splits(there)
    return splits, [name for name in there if name not in splits] if splits else []


def say_beside(name: str, splits: Sequence[str], others: Sequence[str]) -> tuple[str, ...]:
    """One line about images that are left out, which is returned; none where nothing is."""
    if not others:
        return ()
    listed = ", ".join(f"{other}/" for other in others[:SHOWN])
    more = f" and {len(others) - SHOWN:,} more" if len(others) > SHOWN else ""
    taken = " and ".join(f"{split}/" for split in splits)
    line = f"images in {listed}{more} are left out: they lie beside {taken}, taken for splits by name"
    say_once(f"{name}: {line}. If that is a class, put all classes into a folder train/.")
    return (line,)


def _splits(names: Sequence[str]) -> list[str]:
    return [found for split in SYNONYMS for found in names_of_split(split, names)]


def _holds_an_image(folder: Path) -> bool:
    return any(
        is_image_name(file) and not is_hidden(os.path.relpath(os.path.join(root, file), folder).replace(os.sep, "/"))
        for root, _, files in os.walk(folder, followlinks=True)
        for file in files
    )
