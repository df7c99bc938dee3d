"""Classes of images from the folders that hold them."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from timm.utils.misc import natural_key

from disco_zoo.data.file_names import as_text
from disco_zoo.data.split_files import split_word


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
    classes = sorted(set(of_folder.values()), key=natural_key)
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
