"""Folders and tars of images, in the order of timm's readers."""

from __future__ import annotations

import hashlib
import heapq
import os
import posixpath
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from disco_zoo.core.console import say_once
from disco_zoo.core.files import user_path
from disco_zoo.data import class_folders
from disco_zoo.data.class_folders import FolderLabels, folders_beside, label_by_folder, names_beside, say_beside
from disco_zoo.data.dataset import ImageSource, Origin, split_words
from disco_zoo.data.file_tree import TarImage, images_of_folder, images_of_tar, size_of
from disco_zoo.data.image_files import IMAGE_SUFFIXES, LeftOut
from disco_zoo.data.split_files import (
    folder_of_splits,
    is_called,
    no_test_split,
    paths_of_split,
    refuse_test_inside,
    resolve_path,
    resolve_paths,
    split_folders,
)
from disco_zoo.errors import BadData, NoTestImages

SORTED_AT_ONCE = 2**16


class PackedNames(Sequence[str]):
    """Names in a given order.

    Args:
        names: read once, one after the other.
    """

    def __init__(self, names: Iterable[str]) -> None:
        block, ends = bytearray(), [np.zeros(1, dtype=np.int64)]
        pending: list[int] = []
        for name in names:
            # Bytes in this encoding sort as the strings do, and also names that are no valid text come back whole.
            block += name.encode("utf-8", "surrogatepass")
            pending.append(len(block))
            if len(pending) == SORTED_AT_ONCE:
                ends.append(np.asarray(pending, dtype=np.int64))
                pending = []
        ends.append(np.asarray(pending, dtype=np.int64))
        self._block, self._ends = block, np.concatenate(ends)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:  # type: ignore[override]
        return self._bytes(range(len(self))[index]).decode("utf-8", "surrogatepass")

    def _bytes(self, index: int) -> bytes:
        return bytes(self._block[self._ends[index] : self._ends[index + 1]])

    def sorted_positions(self) -> Iterator[int]:
        """The positions of the names in the names' sorted order; equal names in the order they have here.

        Parts are sorted and then merged, so that no more than one part exists as Python objects.
        """
        firsts = range(0, len(self), SORTED_AT_ONCE)
        parts = [self._sorted_part(first) for first in firsts]
        yield from heapq.merge(*(map(int, part) for part in parts), key=self._bytes)

    def _sorted_part(self, first: int) -> np.ndarray:
        positions = range(first, min(first + SORTED_AT_ONCE, len(self)))
        return np.asarray(sorted(positions, key=self._bytes), dtype=np.int64)


def open_folder(name: str, folder: Path, split: str, dedicated: bool) -> ImageSource:
    """Open a folder of images: its train/ or test/ (val/, ...) subfolder, else itself or its sibling.

    Raises:
        BadData: No images, or nothing for this split.
    """
    folders, notes = folders_of_split(name, folder, split, dedicated)
    sources: list[FolderSource] = []
    for candidate in folders:
        sources.append(FolderSource(name, split, candidate, notes))
        if split == "train" and not dedicated:
            refuse_test_inside(name, sources[-1].class_folders)
        if sources[-1].labels is not None:  # else a secret test set; another word may have the labels
            _say_which(sources)
            return sources[-1]
    return sources[0]


def folders_of_split(name: str, folder: Path, split: str, dedicated: bool) -> tuple[list[Path], tuple[str, ...]]:
    """The folders that may hold a split's images, most wanted first, and lines on what lies beside them.

    Raises:
        BadData: folders of the other split alone, or no test images.
    """
    top = folder_of_splits(folder)
    candidates = split_folders(top, split)
    others = split_folders(top, "test" if split == "train" else "train")
    if others and not candidates and not dedicated:
        if split == "test":
            raise no_test_split(name)
        raise BadData(f"{name} has {others[0].name}/ but no {split}/. Give {others[0]} itself to use it.")
    if split == "train" and len(candidates) > 1:
        others_said = ", ".join(f"{one.name}/" for one in candidates[1:])
        say_once(f"{name}: trained on {candidates[0].name}/; {others_said} is called so, too, and is left out")
    notes = say_beside(name, *folders_beside(top)) if candidates else ()
    return candidates or resolve_paths(top, split, dedicated), notes


def _say_which(sources: list[FolderSource]) -> None:
    """Tell of the last folder, which is used, and of those before it what their names do not."""
    *passed_over, used = sources
    listed = f", labelled by {class_folders.ANNOTATIONS}" if used.is_listed else ""
    without = f"; {passed_over[0].folder.name}/ has no labels" if passed_over else ""
    if listed or without:
        where = f"those of {used.folder.name}/{listed}{without}"
        say_once(f"{used.name}: the {len(used):,} {split_words(used.split)} are {where}")


def open_tar(name: str, path: Path, split: str, dedicated: bool) -> ImageSource:
    """Open an uncompressed .tar of images, with folders in it as splits and classes; else its sibling for "test".

    Raises:
        BadData: No images, a damaged file, or nothing for this split.
    """
    try:
        file = resolve_path(path, split, dedicated)
    except NoTestImages:
        file = path  # which may hold both
    source = TarSource(name, split, file, dedicated=dedicated or file != path)
    if split == "test" and file == path and not (dedicated or source.origin.split or is_called(path, "test")):
        raise no_test_split(name)
    return source


def _label(name: str, paths: Iterable[str]) -> FolderLabels:
    """Labels and class names by folders; where the classes are paths, a line on the screen says so."""
    found = label_by_folder(paths)
    if nested := [kind for kind in found.names or [] if "/" in kind]:
        say_once(
            f"{name}: folders of the same name lie in different ones and are classes of their own, such as "
            f"{', '.join(nested[:2])}. If they mean one class, put their images into one folder."
        )
    return found


class FolderSource(ImageSource):
    """Image files below a folder, in timm's order, with the folders that hold them as classes (`class_folders.py`).

    Attributes:
        is_listed: whether the labels are those of Tiny-ImageNet's list (`py`).
    """

    def __init__(self, name: str, split: str, folder: Path, notes: tuple[str, ...] = ()) -> None:
        self.folder = folder.resolve()
        found, left_out = images_of_folder(self.folder)
        if not found:
            raise _no_images(name, left_out)
        left_out.say(name)
        self._paths = PackedNames(found)
        by_folder = _label(name, (path.replace(os.sep, "/") for path in self._paths))
        labels, classes = by_folder.labels, by_folder.names
        self.is_listed = labels is None and class_folders.is_validation_folder(self.folder)
        if self.is_listed:
            labels, classes = class_folders.label_by_list(self.folder, self._paths)
        super().__init__(name, split, labels, classes)
        self.class_folders = {} if self.is_listed else by_folder.folders
        source = class_folders.ANNOTATIONS if self.is_listed else "folders"
        part = f"folder {self.folder.name}" if self.folder != user_path(name).resolve() else ""
        self.origin = Origin(part, source if labels is not None else "", left_out.facts(), notes)

    def __len__(self) -> int:
        return len(self._paths)

    def encoded(self, index: int) -> bytes:
        """Return the file's bytes."""
        return (self.folder / self._paths[index]).read_bytes()

    def header(self, index: int) -> Path:
        return self.folder / self._paths[index]

    def places(self) -> tuple[Path, ...]:
        return (self.folder,)

    def path(self, index: int) -> str:
        """Return the file's path."""
        return str(self.folder / self._paths[index])

    def _hash_content(self, digest: hashlib._Hash) -> None:
        # Names and sizes: reading ImageNet's 140 GB would take longer than many a run.
        for position in self._paths.sorted_positions():
            path = self._paths[position]
            size_bytes = size_of(self.folder / path)
            digest.update(f"{Path(path).as_posix()}\0{size_bytes}\n".encode("utf-8", "surrogateescape"))


def _no_images(name: str, left_out: LeftOut) -> BadData:
    suffixes = left_out.suffixes
    if left_out.hidden:
        return BadData(f"{name} holds hidden images alone ({left_out.hidden}). Give a folder with others in it.")
    if not suffixes:
        return BadData(f"{name} is empty. Give a folder with images in it.")
    if suffixes[".tar"]:
        return BadData(
            f"{name} holds .tar files and no images. Give one of them; for shards type: disco-zoo data index {name}"
        )
    found = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(3))
    return BadData(f"{name} holds no images that can be read ({', '.join(IMAGE_SUFFIXES[:3])}, ...), only: {found}.")


def _path_in_tar(image: TarImage) -> str:
    """The path of an image, with the .tar in the .tar that holds it as a folder."""
    return posixpath.normpath(posixpath.join(os.path.splitext(image.inside)[0], image.name)).lstrip("/")


def _tops(paths: Iterable[str], folder: str) -> set[str]:
    """The names in a folder ("" for the top) of the folders that hold these paths."""
    start = len(folder) + 1 if folder else 0
    return {path[start:].partition("/")[0] for path in paths if "/" in path[start:]}


class TarSource(ImageSource):
    """Image files in one .tar, or in the .tar files inside it."""

    def __init__(self, name: str, split: str, path: Path, *, dedicated: bool = False) -> None:
        self.file = path.resolve()
        try:
            found, left_out = images_of_tar(self.file)
        except (tarfile.TarError, OSError, EOFError) as error:
            raise BadData(f"{name} is damaged or no plain .tar; copy or make it again. ({error})") from error
        if not found:
            raise _no_images(name, left_out)
        left_out.say(name)
        paths = [_path_in_tar(image) for image in found]
        chosen, part = paths_of_split(name, paths, split, dedicated)
        notes = say_beside(name, *names_beside(_tops(paths, posixpath.dirname(part)))) if part else ()
        found, paths = [found[number] for number in chosen], [paths[number] for number in chosen]
        # Read by offset: forked workers would share the file position of an open tar.
        self._names = PackedNames(image.name for image in found)
        self._offsets = np.array([image.offset for image in found], dtype=np.int64)
        self._sizes = np.array([image.size for image in found], dtype=np.int64)
        by_folder = _label(name, (path[len(part) + 1 :] for path in paths) if part else paths)
        if split == "train" and not dedicated:
            refuse_test_inside(name, by_folder.folders)
        super().__init__(name, split, by_folder.labels, by_folder.names)
        self.class_folders, self._part = by_folder.folders, part
        self.origin = Origin(part and f"folder {part}", "folders" if self.labels else "", left_out.facts(), notes)

    def __len__(self) -> int:
        return len(self._names)

    def encoded(self, index: int) -> bytes:
        """Return the member's bytes."""
        with self.file.open("rb") as file:
            file.seek(int(self._offsets[index]))
            return file.read(int(self._sizes[index]))

    def places(self) -> tuple[Path, ...]:
        return (self.file / self._part,)

    def path(self, index: int) -> str:
        """Return the member's name and the tar's."""
        return f"{self._names[index]} in {self.file.name}"

    def _hash_content(self, digest: hashlib._Hash) -> None:
        for position in self._names.sorted_positions():
            digest.update(f"{self._names[position]}\0{self._sizes[position]}\n".encode("utf-8", "surrogateescape"))
