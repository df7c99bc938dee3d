"""The labels of Tiny-ImageNet's validation images: all lie in `val/images`, and `val/val_annotations.txt` lists them.

A line of the list is the file's name, its WordNet id and a box, with tabs between them (Stanford CS231n,
http://cs231n.stanford.edu/tiny-imagenet-200.zip). `wnids.txt` beside `val/` lists the ids of all classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from timm.utils.misc import natural_key

from disco_zoo.errors import BadData

ANNOTATIONS = "val_annotations.txt"
CLASSES = "wnids.txt"
IMAGES = "images"
_AGAIN = "Unpack tiny-imagenet-200.zip again"


def is_validation_folder(folder: Path) -> bool:
    """Whether this is `val/` of the original layout, also of one that has lost its list."""
    has_list = (folder / ANNOTATIONS).is_file() or (folder.name == "val" and (folder.parent / CLASSES).is_file())
    return has_list and (folder / IMAGES).is_dir()


def label_by_list(folder: Path, names: Iterable[str]) -> tuple[NDArray[np.int64], list[str]]:
    """Label the images of `val/` by its list.

    Args:
        names: paths of the images below `folder`.

    Returns:
        A label for each image and the WordNet id of each label, ordered as folders of these names are.

    Raises:
        BadData: no list, a line that says nothing, an unknown class, or other images than those listed.
    """
    files = [Path(name).as_posix() for name in names]
    path, known = folder / ANNOTATIONS, folder.parent / CLASSES
    listed = _read_list(path)
    _refuse(listed.keys() - set(files), f"{path} lists", "images that are not there", "or delete their lines")
    _refuse(set(files) - listed.keys(), f"{path} does not list", "images that are there", "or remove them")
    wnids = set(known.read_text("utf-8", "replace").split()) if known.is_file() else set(listed.values())
    strange = {file for file, wnid in listed.items() if wnid not in wnids}
    _refuse(strange, f"{path} gives", f"images a class that {CLASSES} does not list", "or remove them and their lines")
    classes = sorted(wnids, key=natural_key)
    numbers = {wnid: number for number, wnid in enumerate(classes)}
    return np.asarray([numbers[listed[file]] for file in files], dtype=np.int64), classes


def _read_list(path: Path) -> dict[str, str]:
    """The class of each listed image."""
    if not path.is_file():
        raise BadData(f"{path} is not there, and it labels the validation images. {_AGAIN}.")
    listed: dict[str, str] = {}
    for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
        name, *rest = line.split("\t")
        if not (name and rest and rest[0]):
            raise BadData(f"{path}, line {number} is not a file and its class with a tab between them. {_AGAIN}.")
        if f"{IMAGES}/{name}" in listed:
            raise BadData(f"{path}, line {number} lists {name} a second time. {_AGAIN}.")
        listed[f"{IMAGES}/{name}"] = rest[0]
    return listed


def _refuse(files: Set[str], subject: str, fault: str, remedy: str) -> None:
    if files:
        raise BadData(f"{subject} {fault} ({len(files):,}, such as {min(files)}). {_AGAIN}, {remedy}.")
