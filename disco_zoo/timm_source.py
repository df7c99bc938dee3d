"""Folders and tars of images, found and ordered by timm's readers."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from disco_zoo.datasets import ImageSource
from disco_zoo.errors import BadData
from disco_zoo.packed_names import PackedNames
from disco_zoo.split_files import no_test_split, resolve_path, split_folders

# timm reads png and jpg unless told more.
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def open_folder(name: str, folder: Path, split: str, dedicated: bool) -> ImageSource:
    """Open a folder of images: its train/ or test/ (val/, ...) subfolder, else itself or its sibling.

    Raises:
        BadData: No images, or nothing for this split.
    """
    sources: list[ImageSource] = []
    for candidate in split_folders(folder, split):
        sources.append(FolderSource(name, split, candidate))
        if sources[-1].labels is not None:  # else a secret test set; another word may have the labels
            return sources[-1]
    if sources:
        return sources[0]
    others = split_folders(folder, "test" if split == "train" else "train")
    if others and not dedicated:
        if split == "test":
            raise no_test_split(name)
        raise BadData(f"{name} has {others[0].name}/ but no {split}/. Give {others[0]} itself to use it.")
    return FolderSource(name, split, resolve_path(folder, split, dedicated))


def open_tar(name: str, path: Path, split: str) -> ImageSource:
    """Open an uncompressed .tar of images, with folders in it as classes.

    Raises:
        BadData: No images, or a damaged file.
    """
    return TarSource(name, split, path)


def _labels(
    targets: NDArray[np.int64], class_to_idx: dict[str, int]
) -> tuple[NDArray[np.int64] | None, list[str] | None]:
    """Return labels and class names; images without class folders, or all in one, have no labels."""
    if "" in class_to_idx or len(class_to_idx) < 2:
        return None, None
    return targets, sorted(class_to_idx, key=class_to_idx.__getitem__)


class FolderSource(ImageSource):
    """Image files below a folder, in timm's order; a class is the name of the folder that holds the file."""

    def __init__(self, name: str, split: str, folder: Path) -> None:
        from timm.data import create_dataset

        self.folder = folder.resolve()
        try:
            # The split was resolved before, and "train" could also be a class here.
            suffixes = ";".join(IMAGE_SUFFIXES)
            dataset = create_dataset("", root=str(self.folder), search_split=False, input_key=suffixes)
        except RuntimeError as error:
            raise _no_images(name, self.folder) from error
        samples = dataset.reader.samples
        self._paths = PackedNames(os.path.relpath(path, self.folder) for path, _ in samples)
        targets = np.fromiter((label for _, label in samples), dtype=np.int64, count=len(samples))
        super().__init__(name, split, *_labels(targets, dataset.reader.class_to_idx))

    def __len__(self) -> int:
        return len(self._paths)

    def encoded(self, index: int) -> bytes:
        """Return the file's bytes."""
        return (self.folder / self._paths[index]).read_bytes()

    def path(self, index: int) -> str:
        """Return the file's path."""
        return str(self.folder / self._paths[index])

    def _hash_content(self, digest: hashlib._Hash) -> None:
        # Names and sizes: reading ImageNet's 140 GB would take longer than many a run.
        for position in self._paths.sorted_positions():
            path = self._paths[position]
            size_bytes = (self.folder / path).stat().st_size
            digest.update(f"{Path(path).as_posix()}\0{size_bytes}\n".encode("utf-8", "surrogateescape"))


def _no_images(name: str, folder: Path) -> BadData:
    suffixes = Counter(path.suffix.lower() for path in folder.rglob("*") if path.is_file())
    if not suffixes:
        return BadData(f"{name} is empty. Give a folder with images in it.")
    if suffixes[".tar"]:
        return BadData(
            f"{name} holds .tar files and no images. Give one of them; for shards type: disco-zoo data index {name}"
        )
    found = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in suffixes.most_common(3))
    return BadData(f"{name} holds no images ({', '.join(IMAGE_SUFFIXES)}), only: {found}.")


class TarSource(ImageSource):
    """Image files in one .tar, or in the .tar files inside it."""

    def __init__(self, name: str, split: str, path: Path) -> None:
        import tarfile

        from timm.data import create_dataset

        self.file = path.resolve()
        try:
            reader = create_dataset("", root=str(self.file), search_split=False).reader
        except (tarfile.TarError, OSError, EOFError) as error:
            raise BadData(f"{name} is damaged or no plain .tar; copy or make it again. ({error})") from error
        except ValueError as error:  # timm unpacks an empty list
            raise BadData(f"{name} holds no images (.png, .jpg, .jpeg). Give another .tar.") from error
        # Reading by offset instead of through timm's open tar: forked workers would share its file position.
        samples = reader.samples
        self._names = PackedNames(member.name for member, _, _ in samples)
        places = [
            (member.offset_data + (child.offset_data if child is not None else 0), member.size)
            for member, _, child in samples
        ]
        self._offsets, self._sizes = np.asarray(places, dtype=np.int64).T.copy()
        super().__init__(name, split, *_labels(reader.targets.astype(np.int64), reader.class_name_to_idx))

    def __len__(self) -> int:
        return len(self._names)

    def encoded(self, index: int) -> bytes:
        """Return the member's bytes."""
        with self.file.open("rb") as file:
            file.seek(int(self._offsets[index]))
            return file.read(int(self._sizes[index]))

    def path(self, index: int) -> str:
        """Return the member's name and the tar's."""
        return f"{self._names[index]} in {self.file.name}"

    def _hash_content(self, digest: hashlib._Hash) -> None:
        for position in self._names.sorted_positions():
            digest.update(f"{self._names[position]}\0{self._sizes[position]}\n".encode("utf-8", "surrogateescape"))
