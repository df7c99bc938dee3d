"""Images in parquet files: encoded bytes in one column, a label in another, read one row group at a time."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disco_zoo.core.console import say_once
from disco_zoo.data.dataset import ImageSource, Origin, first_labelled
from disco_zoo.data.file_tree import images_below
from disco_zoo.data.formats.parquet_files import require_whole_sets
from disco_zoo.data.parquet_columns import (
    as_labels,
    called_as_labels,
    common_type,
    declared_names,
    hash_cell,
    image_column,
    label_column,
    require_alike,
    say_other_images,
    split_column,
)
from disco_zoo.data.passing_errors import is_passing
from disco_zoo.data.source_image import EMPTY_CELL
from disco_zoo.data.split_files import (
    files_by_split,
    named_for,
    no_test_split,
    resolve_path,
    split_word,
)
from disco_zoo.errors import BadData, NoTestImages, counted, own_words, require

# Row groups held undecoded, per process. Sources up to this size are read from disk once.
CACHE_BYTES = 2 * 2**30
# Above this, the fingerprint reads evenly spaced row groups only (and every row group's size).
FINGERPRINT_BYTES = 4 * 2**30
ROWS_AT_ONCE = 2**16
OPEN_FILES = 64  # per process, of however many shards


def open_parquet(name: str, path: Path, split: str, dedicated: bool) -> ImageSource:
    """Open a parquet file for a split; see `open_source`.

    Raises:
        BadData: Missing split, no image column, empty or damaged.
    """
    if split_column(_open(path).schema_arrow) is not None:
        return ParquetSource(name, split, [path], whole=dedicated)
    return ParquetSource(name, split, [resolve_path(path, split, dedicated)])


def open_tables(
    name: str, folder: Path, tables: list[Path], passed: list[Path], split: str, dedicated: bool
) -> ImageSource:
    """Open the parquet files of a folder for a split; what else lies there is said.

    Args:
        tables, passed: as `find_tables` has them.

    Raises:
        BadData: Missing split or shard, no image column, empty or damaged.
    """
    require_whole_sets(name, tables)
    source = _of_split(name, folder, tables, split, dedicated)
    notes = [f"{counted(len(passed), 'table')} without images passed over"] if passed else []
    if beside := sum(1 for _ in images_below(folder)):
        notes.append(f"{counted(beside, 'image file')} beside the tables left out")
        say_once(f"{name}: {notes[-1]}")
    source.origin = replace(source.origin, notes=(*source.origin.notes, *notes))
    return source


def _of_split(name: str, folder: Path, files: list[Path], split: str, dedicated: bool) -> ImageSource:
    groups = files_by_split(folder, files, split)
    if not groups:
        if not dedicated and split_column(_open(files[0]).schema_arrow) is None:
            if split == "test":
                raise no_test_split(name)
            _refuse_test_shards(name, folder, files)
        return ParquetSource(name, split, files, whole=dedicated)
    return first_labelled(
        ParquetSource(name, split, group, part=f"files named {word}") for word, group in groups.items()
    )


def _refuse_test_shards(name: str, folder: Path, files: list[Path]) -> None:
    held_out = files_by_split(folder, files, "test")
    if held_out:
        shard = next(iter(held_out.values()))[0].name
        raise BadData(f"{name} has shards of a test set ({shard}) but none named train-*.parquet. Rename those.")


def _open(path: Path) -> Any:
    parquet = require("pyarrow.parquet", "train")
    arrow = require("pyarrow", "train")
    try:
        # Mapped, so that forked workers share no file position.
        return parquet.ParquetFile(path, memory_map=True)
    except (arrow.ArrowException, OSError) as error:
        if is_passing(error):
            raise
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> BadData:
    return BadData(f"{path} is damaged or no parquet file; copy or make it again. ({own_words(error)})")


class ParquetSource(ImageSource):
    """Rows of one or several parquet files (shards of one set, in the given order).

    Only labels and positions are read when it is opened. Images are read by row group on demand, and a
    bounded number of row groups is kept; a pickled copy, as in a spawned worker, opens the files again.

    Args:
        whole: take all rows where none is of the split.
        part: which part of what the user named these files are, see `Origin`.
    """

    def __init__(self, name: str, split: str, files: list[Path], *, whole: bool = False, part: str = "") -> None:
        self._files = [file.resolve() for file in files]
        self._reset()
        schema = self._opened(0).schema_arrow
        self._column, self._is_struct = image_column(schema, files[0])
        self._starts: list[int] = []  # first row of each row group, counted over all files
        self._groups: list[tuple[int, int]] = []  # (file, row group in it)
        self._group_bytes: list[int] = []
        num_rows = 0
        for number in range(len(files)):
            opened = self._opened(number)
            require_alike(files[number], opened.schema_arrow, files[0], schema)
            for group in range(opened.metadata.num_row_groups):
                meta = opened.metadata.row_group(group)
                self._starts.append(num_rows)
                self._groups.append((number, group))
                self._group_bytes.append(meta.total_byte_size)
                num_rows += meta.num_rows
        self._rows = self._select_rows(schema, split, num_rows, whole, name)
        labels, class_names = self._read_labels(schema, name)
        super().__init__(name, split, labels, class_names)
        part = part if isinstance(self._rows, range) else "by the column split"
        column = label_column(schema)
        notes = say_other_images(schema, self._column, name)
        self.origin = Origin(part, f"the column {column}" if self.labels is not None else "", notes=notes)
        self._reset()
        if len(self) == 0:
            raise BadData(f"{name} holds no images: the table is empty.")

    def let_go(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._handles: OrderedDict[int, Any] = OrderedDict()  # the file used last at the end
        self._cache: OrderedDict[int, tuple[Any, Any]] = OrderedDict()
        self._cached_bytes = 0

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_handles", "_cache", "_cached_bytes")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def _opened(self, number: int) -> Any:
        """A file, open; so that many shards need no more handles than a process may have."""
        if number not in self._handles:
            self._handles[number] = _open(self._files[number])
        self._handles.move_to_end(number)
        while len(self._handles) > OPEN_FILES:
            self._handles.popitem(last=False)
        return self._handles[number]

    def _read_column(self, column: str) -> Any:
        arrow = require("pyarrow", "train")
        try:
            columns = [
                self._opened(number).read(columns=[column], use_threads=False).column(0)
                for number in range(len(self._files))
            ]
        except (arrow.ArrowException, OSError) as error:
            raise _damaged(self._files[0], error) from error
        kind = common_type([column.type for column in columns])
        return arrow.chunked_array([chunk.cast(kind) for column in columns for chunk in column.chunks], kind)

    def _select_rows(self, schema: Any, split: str, num_rows: int, whole: bool, name: str) -> range | NDArray[np.int64]:
        column = split_column(schema)
        if column is None:
            return range(num_rows)
        splits = self._read_column(column)
        words = splits.unique().to_pylist()
        if named := named_for(split, [word for word in words if word]):
            same = [word for word in named if split_word(word) == split_word(named[0])]  # also Train beside TRAIN
            wanted = require("pyarrow", "train").array(same, splits.type)
            is_wanted = require("pyarrow.compute", "train").is_in(splits, value_set=wanted)
            return np.flatnonzero(is_wanted.to_numpy())
        if whole:
            return range(num_rows)
        found = ", ".join(sorted(map(str, words)))
        kind = NoTestImages if split == "test" else BadData
        raise kind(f"{name} has no {split} rows, its split column holds: {found}. Give others with --eval-data.")

    def _read_labels(self, schema: Any, name: str) -> tuple[NDArray[np.int64] | None, list[str] | None]:
        """Return labels of the selected rows and the class names, as far as the files tell."""
        column = label_column(schema)
        labels, class_names = as_labels(self._read_column(column)) if column is not None else (None, None)
        if column is None or labels is None:
            if called := column or called_as_labels(schema):
                say_once(f"{name}: the column {called} holds no class of any image (whole numbers or words): no labels")
            return None, None
        self.names_are_declared = class_names is None
        class_names = class_names or declared_names(schema, column) or self._names_from_paths(schema, labels)
        return labels if isinstance(self._rows, range) else labels[self._rows], class_names

    def _names_from_paths(self, schema: Any, labels: NDArray[np.int64]) -> list[str] | None:
        """Return names from stored paths like "airplane/0007.jpg", if folders and labels agree one to one."""
        if not self._is_struct or schema.field(self._column).type.get_field_index("path") < 0:
            return None
        cells, pairs = self._read_column(f"{self._column}.path"), set()
        for first in range(0, len(labels), ROWS_AT_ONCE):
            stored = [(cell or {}).get("path") for cell in cells.slice(first, ROWS_AT_ONCE).to_pylist()]
            folders = [(path or "").rpartition("/")[0] for path in stored]
            pairs |= set(zip(labels[first : first + ROWS_AT_ONCE].tolist(), folders, strict=True))
        pairs = {(label, folder) for label, folder in pairs if label >= 0}
        names = [folder.rpartition("/")[2] for _, folder in sorted(pairs)]
        is_one_to_one = sorted(label for label, _ in pairs) == list(range(len(set(names))))
        return names if is_one_to_one and all(names) else None

    def __len__(self) -> int:
        return len(self._rows)

    def _row_group(self, position: int) -> tuple[Any, Any]:
        """Return the bytes and the paths (or None) of one row group, from the cache if they are there."""
        if position in self._cache:
            self._cache.move_to_end(position)
            return self._cache[position]
        arrow = require("pyarrow", "train")
        number, group = self._groups[position]
        try:
            table = self._opened(number).read_row_group(group, columns=[self._column], use_threads=False)
        except (arrow.ArrowException, OSError) as error:
            if is_passing(error):
                raise
            raise _damaged(self._files[number], error) from error
        column = table.column(0)
        if not self._is_struct:
            self._cache[position] = (column, None)
        else:
            compute = require("pyarrow.compute", "train")
            has_path = column.type.get_field_index("path") >= 0
            paths = compute.struct_field(column, "path") if has_path else None
            self._cache[position] = (compute.struct_field(column, "bytes"), paths)
        self._cached_bytes += self._group_bytes[position]
        while self._cached_bytes > CACHE_BYTES and len(self._cache) > 1:
            oldest, _ = self._cache.popitem(last=False)
            self._cached_bytes -= self._group_bytes[oldest]
        return self._cache[position]

    def _cell(self, index: int) -> tuple[Any, str | None]:
        """Return the arrow scalar of the bytes and the path stored beside it."""
        row = int(self._rows[index])
        position = bisect_right(self._starts, row) - 1
        local = row - self._starts[position]
        encoded, paths = self._row_group(position)
        return encoded[local], paths[local].as_py() if paths is not None else None

    def encoded(self, index: int) -> bytes:
        """Return the image file's bytes, from the column or, where it only has a path, from that file."""
        cell, stored = self._cell(index)
        if content := cell.as_py():
            return bytes(content)
        if stored:
            return (self._file_of(index).parent / stored).read_bytes()
        raise ValueError(EMPTY_CELL)

    def places(self) -> tuple[Path, ...]:
        return tuple(self._files) if isinstance(self._rows, range) else ()

    def _file_of(self, index: int) -> Path:
        number, _ = self._groups[bisect_right(self._starts, int(self._rows[index])) - 1]
        return self._files[number]

    def path(self, index: int) -> str:
        """Return the path stored with the image, or file and row."""
        stored = self._cell(index)[1]
        place = f"{self._file_of(index).name} row {int(self._rows[index])}"
        return f"{stored} in {place}" if stored else place

    def _hash_content(self, digest: hashlib._Hash) -> None:
        stride = max(1, -(-sum(self._group_bytes) // FINGERPRINT_BYTES))
        if stride > 1:
            digest.update(np.asarray(self._group_bytes, dtype="<i8").tobytes())
        for first in range(0, len(self), ROWS_AT_ONCE):
            rows = np.asarray(self._rows[first : first + ROWS_AT_ONCE])
            positions = np.searchsorted(self._starts, rows, side="right") - 1
            for index in np.flatnonzero(positions % stride == 0):
                hash_cell(digest, *self._cell(first + int(index)))
