"""Which parquet files of a folder are tables of images."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from disco_zoo.core.console import say_once
from disco_zoo.data.file_tree import images_below, is_folder, listed
from disco_zoo.data.image_files import is_hidden
from disco_zoo.data.parquet_columns import image_columns, is_declared_image, is_image_bytes
from disco_zoo.data.split_files import subfolders
from disco_zoo.errors import BadData, require

_OF_SET = re.compile(r"(.*?)\d+-of-(\d+)\.parquet")


def find_tables(folder: Path) -> tuple[list[Path], list[Path]]:
    """Parquet files of a folder, of its data/ (Hugging Face layout) or its subfolders, sorted: of images, and others.

    Those without a column of images (an embedding, a table of facts) are passed over, and a line says so, where others
    have one or image files lie there.

    Raises:
        BadData: a folder beside those of the files may not be read.
    """
    passed: list[Path] = []
    for files in _parquet_groups(folder):
        kept = [file for file in files if _may_hold_images(file)]
        passed += [file for file in files if file not in kept]
        if kept:
            _say_passed(folder, passed)
            return kept, passed
    if passed and any(True for _ in images_below(folder)):
        _say_passed(folder, passed)
        return [], passed
    return passed, []


def _say_passed(folder: Path, passed: list[Path]) -> None:
    if passed:
        others = f" and {len(passed) - 1} more" if len(passed) > 1 else ""
        say_once(f"{folder}: {passed[0].name}{others} without a column of images, passed over")


def _may_hold_images(file: Path) -> bool:
    """Also where it cannot be read, which is said when it is opened."""
    parquet, arrow = require("pyarrow.parquet", "train"), require("pyarrow", "train")
    try:
        with parquet.ParquetFile(file) as table:
            column = next(iter(image_columns(table.schema_arrow)), None)
            if column is None or is_declared_image(table.schema_arrow, column):
                return column is not None
            rows = next(table.iter_batches(1, columns=[column]), None)
            return rows is None or is_image_bytes(rows.column(0)[0].as_py())
    except (arrow.ArrowException, OSError):
        return True


def _parquet_groups(folder: Path) -> Iterator[list[Path]]:
    """Parquet files by where they lie, most wanted place first."""
    inner = subfolders(folder)
    for place in (folder, *(folder / name for name in inner if name == "data")):
        if found := _parquet_files(place):
            yield found
    closed: BadData | None = None
    below: list[Path] = []
    for name in inner:
        if name == "data":
            continue
        try:
            below += _parquet_files(folder / name)
        except BadData as error:  # of no matter where there are none: then it is no folder of shards
            closed = error
    if below and closed is not None:
        raise closed
    if below:
        yield sorted(below)


def _parquet_files(folder: Path) -> list[Path]:
    names = (entry.name for entry in listed(folder) if not is_folder(entry))
    return [folder / name for name in names if name.endswith(".parquet") and not is_hidden(name)]


def require_whole_sets(name: str, files: list[Path]) -> None:
    """Refuse a part of a set whose files say how many there are: x-00000-of-00002.parquet.

    Raises:
        BadData: some are missing.
    """
    matches = ((file.parent, _OF_SET.fullmatch(file.name)) for file in files)
    counts = Counter((folder, match[1], int(match[2])) for folder, match in matches if match)
    for (_, prefix, total), found in counts.items():
        if found != total:
            raise BadData(
                f"{name} holds {found} of the {total} files {prefix}*-of-{total:05d}.parquet. Copy the others, or, "
                "where disco-zoo data pack was cut off, repeat it with --resume"
            )
