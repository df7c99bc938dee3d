"""Classes of images from the folders that hold them, and images that lie in no class folder.

Tiny-ImageNet's validation images are the exception: all lie in `val/images`, and `val/val_annotations.txt` lists them.
A line of the list is the file's name, its WordNet id and a box, with tabs between them (Stanford CS231n,
http://cs231n.stanford.edu/tiny-imagenet-200.zip). `wnids.txt` beside `val/` lists the ids of all classes.
"""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from disco_zoo.core.console import say_once
from disco_zoo.data.file_tree import images_below, natural_order
from disco_zoo.data.image_files import as_text
from disco_zoo.data.split_files import SYNONYMS, names_of_split, split_word, subfolders
from disco_zoo.errors import BadData


@dataclass(frozen=True)
class FolderLabels:
    """Labels by the folders that hold the images.

    Attributes:
        labels: int64 (N,), or None where an image lies in no class folder, or all in one.
        names: the class of each label, in natural order (2 before 10); None without labels.
        folders: each folder that holds images, and its label; all 0 where there is one class.
    """

    labels: NDArray[np.int64] | None
    names: list[str] | None
    folders: dict[str, int]


def label_by_folder(names: Iterable[str]) -> FolderLabels:
    """Label images by the folders that hold them.

    Args:
        names: paths of the images below the folder of the split, with "/" between their parts.
    """
    folders: dict[str, int] = {}
    holders = [folders.setdefault(posixpath.dirname(name), len(folders)) for name in names]
    of_folder = {folder: as_text(name) for folder, name in classes_of(folders).items()}
    classes = sorted(set(of_folder.values()), key=natural_order)
    numbers = {name: number for number, name in enumerate(classes)}
    labels = {folder: numbers[of_folder[folder]] for folder in folders}
    if "" in classes or len(classes) < 2:
        return FolderLabels(None, None, labels)
    return FolderLabels(np.asarray([*labels.values()], dtype=np.int64)[holders], classes, labels)


def classes_of(folders: Collection[str]) -> dict[str, str]:
    """The class that each folder of images stands for: its name, where the names tell the folders apart.

    Where names repeat, last parts that all paths share tell nothing and are dropped (`n01443537/images` is n01443537),
    and so are first parts that only name splits (`train/cat` and `val/cat` are cat). If names still repeat, the
    classes are the paths (`dog/hard` and `cat/hard`).

    Args:
        folders: their paths; "" for the top, which stands for no class.
    """
    paths = {folder: tuple(folder.split("/")) for folder in folders}
    if _tell_apart(paths.values()):
        return {folder: path[-1] for folder, path in paths.items()}
    while len({path[-1] for path in paths.values()}) == 1 and min(map(len, paths.values())) > 1:
        paths = {folder: path[:-1] for folder, path in paths.items()}
    if all(split_word(path[0]) for path in paths.values()):
        paths = {folder: path[1:] or ("",) for folder, path in paths.items()}
    whole = not _tell_apart(paths.values())
    return {folder: "/".join(path) if whole else path[-1] for folder, path in paths.items()}


def _tell_apart(paths: Collection[tuple[str, ...]]) -> bool:
    """Whether no two different paths end alike."""
    return len({path[-1] for path in paths}) == len(set(paths))


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
    try:
        return any(True for _ in images_below(folder))
    except BadData:  # nobody may look: named, as it is left out
        return True


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
    classes = sorted(wnids, key=natural_order)
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
