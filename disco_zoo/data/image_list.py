"""Which images a user means: a folder, some files, a list of files, or anything that `open_source` reads."""

from __future__ import annotations

import hashlib
import os
from codecs import BOM_UTF8
from collections.abc import Sequence
from pathlib import Path

from disco_zoo.core.console import say_once
from disco_zoo.core.files import user_path
from disco_zoo.data.dataset import ImageSource, require_index
from disco_zoo.data.file_tree import size_of
from disco_zoo.data.formats.parquet_files import find_tables
from disco_zoo.data.formats.timm_readers import FolderSource
from disco_zoo.data.image_files import IMAGE_SUFFIXES, as_text, is_image_name, path_of_text
from disco_zoo.data.open_source import open_source
from disco_zoo.data.pixels.bit_depth import ValueRanges
from disco_zoo.data.split_files import TEST_ADVICE
from disco_zoo.data.summary import change_line
from disco_zoo.data.webdataset.index import find_index
from disco_zoo.errors import BadData, did_you_mean, shown

LIST_SUFFIX = ".txt"


class FileListSource(ImageSource):
    """Image files in the order given, without labels."""

    def __init__(self, name: str, files: Sequence[Path]) -> None:
        super().__init__(name, "train")
        self.files = [user_path(file).absolute() for file in files]

    def __len__(self) -> int:
        return len(self.files)

    def encoded(self, index: int) -> bytes:
        return self.files[index].read_bytes()

    def header(self, index: int) -> Path:
        return self.files[index]

    def path(self, index: int) -> str:
        return str(self.files[index])

    def _hash_content(self, digest: hashlib._Hash) -> None:
        # Paths and sizes: a list may hold files of the same name from many folders, and an embedding calls its rows so.
        for file in self.files:
            digest.update(f"{file}\0{size_of(file)}\n".encode("utf-8", "surrogateescape"))


def ranges_of_files(name: str, files: Sequence[Path]) -> ValueRanges:
    """What is white in the deep ones of these image files; what is changed on the way to RGB is said.

    Raises:
        BadData: it cannot be told.
    """
    source = FileListSource(name, files)
    ranges = source.ranges_of(0)
    if changes := change_line(source):
        say_once(changes)
    return ranges


def open_images(given: Sequence[str], split: str | None = None) -> ImageSource:
    """Open the images that a user names, all in one source with an index.

    Args:
        given: one folder of image files (whole, with all its subfolders), image file, .txt with a path a line
            (relative to the list), or other source; or several image files.
        split: "train" or "test" of a source that has both; None takes a folder of image files whole and, of others,
            also of shards, "train".

    Raises:
        BadData: nothing there, empty, a stream, or several names of which one is no image file.
    """
    paths = [user_path(name) for name in given]
    if len(paths) > 1 or _is_image_file(paths[0]):
        return FileListSource(_title(given), [_image_file(name, path) for name, path in zip(given, paths, strict=True)])
    if paths[0].suffix.lower() == LIST_SUFFIX:
        return FileListSource(given[0], _listed_files(given[0], paths[0]))
    if split is None and paths[0].is_dir() and find_index(paths[0]) is None and not find_tables(paths[0])[0]:
        return FolderSource(given[0], "train", paths[0])
    if paths[0].is_file() and paths[0].suffix.lower() not in (".parquet", ".tar"):
        known = ", ".join([*IMAGE_SUFFIXES[:6], "..."])
        raise BadData(f"{shown(given[0])} is no image that can be read ({known}), no .txt list, .parquet or .tar.")
    try:
        source = open_source(given[0], split or "train")
    except BadData as error:  # its advice is to measurements
        raise BadData(str(error).replace(TEST_ADVICE, "Leave out --split test.") if split else str(error)) from error
    require_index(source, "this command")
    return source


def reopen_images(data: str | None, split: str | None, names: Sequence[str]) -> ImageSource:
    """Open again what `embed` noted of its images: `data_of` and `split`; for file lists the names are the paths.

    Raises:
        BadData: they are no longer there.
    """
    if data is None:
        return FileListSource("the embedded files", [path_of_text(name) for name in names])
    try:
        return open_images([data], split)
    except BadData as error:
        raise BadData(f"the embedded images are no longer at {shown(data)}. Say where: --images DATA") from error


def data_of(given: Sequence[str], source: ImageSource) -> str | None:
    """What to type to open `source` again from any folder; None for a list of files."""
    if isinstance(source, FileListSource):
        return None
    path = user_path(given[0])
    return str(path.resolve()) if path.exists() else given[0]


def name_of(source: ImageSource, index: int) -> str:
    """The name of an image in an embedding, as text: of a folder's file its path below the folder."""
    path = source.path(index)
    return as_text(Path(os.path.relpath(path, source.folder)).as_posix() if isinstance(source, FolderSource) else path)


def _is_image_file(path: Path) -> bool:
    return is_image_name(path.name) and not path.is_dir()


def _image_file(name: str, path: Path) -> Path:
    if not path.is_file():
        if path.is_dir():
            raise BadData(f"{shown(name)} is a folder; several names must all be image files. Give one folder alone.")
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise BadData(f"{shown(name)} is no file.{did_you_mean(path.name, siblings)}")
    return path


def _listed_files(name: str, path: Path) -> list[Path]:
    try:
        # Names on disk need not be UTF-8, and neither need those of a list.
        lines = os.fsdecode(path.read_bytes().removeprefix(BOM_UTF8)).splitlines()
    except OSError as error:
        raise BadData(f"{shown(name)} cannot be read as a list of paths, one a line: {error}") from error
    files = [path_of_text(str(path.parent / user_path(line.strip()))) for line in lines if line.strip()]
    if not files:
        raise BadData(f"{shown(name)} is empty. Write a path of an image on each line.")
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise BadData(
            f"{len(missing)} of the {len(files)} files in {shown(name)} do not exist, first: {shown(missing[0])}"
        )
    return files


def _title(given: Sequence[str]) -> str:
    return given[0] if len(given) == 1 else f"{given[0]} and {len(given) - 1} more"
