"""An embedding as a file: `.parquet`, or `.npy` with a `.json` beside it. Written in pieces, read in blocks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from disco_zoo.core.files import write_out
from disco_zoo.embedding.facts import EmbeddingFacts, facts_from_json
from disco_zoo.embedding.json_beside import json_beside
from disco_zoo.errors import BadData, did_you_mean, own_words, require, shown

SUFFIXES = (".parquet", ".npy")
BLOCK_ROWS = 4096
_KEY = b"disco_zoo"


@dataclass(frozen=True)
class Piece:
    """Some rows: numbers of images int64 (n,), their names, labels int64 (n,) or None, vectors (n, D)."""

    indices: np.ndarray
    names: list[str]
    labels: np.ndarray | None
    vectors: np.ndarray


def check_suffix(path: Path) -> None:
    """Refuse other files than those that can hold an embedding.

    Raises:
        BadData: neither `.parquet` nor `.npy`.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise BadData(f"{path} must end in .parquet, or in .npy for the vectors alone with a .json beside them")


def write_embedding(path: Path, facts: EmbeddingFacts, num_rows: int, pieces: Iterable[Piece]) -> None:
    """Write pieces one after the other, in one file that is whole or not there.

    Raises:
        CannotWrite: no room or no permission.
    """
    if path.suffix.lower() == ".parquet":
        write_out(path, lambda partial: _write_parquet(partial, facts, pieces))
        return
    beside: dict[str, Any] = {"names": [], "indices": [], "labels": []}
    # Without a whole .json of its own an array is trusted by nobody.
    json_beside(path).unlink(missing_ok=True)
    write_out(path, lambda partial: _write_npy(partial, facts, num_rows, pieces, beside))
    text = json.dumps({"facts": json.loads(facts.as_json()), **beside}, ensure_ascii=False)
    write_out(json_beside(path), lambda partial: partial.write_text(text, encoding="utf-8"))


def _write_parquet(path: Path, facts: EmbeddingFacts, pieces: Iterable[Piece]) -> None:
    arrow, parquet = require("pyarrow", "train"), require("pyarrow.parquet", "train")
    writer = None
    try:
        for piece in pieces:
            vectors = arrow.FixedSizeListArray.from_arrays(
                arrow.array(piece.vectors.reshape(-1)), piece.vectors.shape[1]
            )
            columns = {"index": arrow.array(piece.indices), "name": arrow.array(piece.names, arrow.string())}
            if piece.labels is not None:
                columns["label"] = arrow.array(piece.labels)
            table = arrow.table({**columns, "vector": vectors})
            if writer is None:
                schema = table.schema.with_metadata({_KEY: facts.as_json().encode()})
                # Numbers of a network hardly compress, and uncompressed ones are read as they lie.
                writer = parquet.ParquetWriter(path, schema, compression="none", use_dictionary=False)
            writer.write_table(table.replace_schema_metadata(writer.schema.metadata))
    finally:
        if writer is not None:
            writer.close()


def _write_npy(
    path: Path, facts: EmbeddingFacts, num_rows: int, pieces: Iterable[Piece], beside: dict[str, Any]
) -> None:
    with path.open("wb") as file:
        descr = np.lib.format.dtype_to_descr(np.dtype(facts.number_type))
        header = {"descr": descr, "fortran_order": False, "shape": (num_rows, facts.dims)}
        np.lib.format.write_array_header_1_0(file, header)
        for piece in pieces:
            file.write(np.ascontiguousarray(piece.vectors).tobytes())
            beside["names"] += piece.names
            beside["indices"] += piece.indices.tolist()
            beside["labels"] += [] if piece.labels is None else piece.labels.tolist()


class EmbeddingFile:
    """An embedding, opened: facts and columns at once, vectors block by block.

    Attributes:
        path: of the file.
        facts: what the rows were computed by and from.
        names: of the images; `indices` int64 (N,) their numbers in the source.
        labels: int64 (N,), or None.

    Raises:
        BadData: missing, damaged, or not made by `disco-zoo embed`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
            raise BadData(
                f"there is no embedding at {path}.{did_you_mean(path.name, siblings)} "
                "Type: disco-zoo embed IMAGES --model M --out FILE"
            )
        check_suffix(path)
        is_parquet = path.suffix.lower() == ".parquet"
        self._reader: _ParquetVectors | _NpyVectors = _ParquetVectors(path) if is_parquet else _NpyVectors(path)
        self.facts, self.names, self.indices, self.labels = self._reader.columns()
        if len(self.names) == 0:
            raise BadData(f"{path} holds no rows. Embed some images again")

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def row_of_name(self) -> dict[str, int]:
        """The first row of each name."""
        return {name: row for row, name in reversed([*enumerate(self.names)])}

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Consecutive rows float32 (b, D), each block with the number of its first row."""
        first = 0
        for block in self._reader.blocks():
            yield first, np.ascontiguousarray(block, dtype=np.float32)
            first += len(block)

    def rows(self, numbers: Sequence[int]) -> np.ndarray:
        """Rows float32 (n, D) of these numbers, in their order, in one pass."""
        wanted = np.asarray(numbers, dtype=np.int64)
        found = np.empty((len(wanted), int(self.facts.dims or 0)), np.float32)
        for first, block in self.blocks():
            here = np.flatnonzero((wanted >= first) & (wanted < first + len(block)))
            found[here] = block[wanted[here] - first]
        return found


_Columns = tuple[EmbeddingFacts, list[str], np.ndarray, np.ndarray | None]


class _ParquetVectors:
    def __init__(self, path: Path) -> None:
        self.path, self.arrow = path, require("pyarrow", "train")
        try:
            self.file = require("pyarrow.parquet", "train").ParquetFile(path, memory_map=True)
        except (self.arrow.ArrowException, OSError) as error:
            raise _damaged(path, error) from error

    def columns(self) -> _Columns:
        facts = facts_from_json((self.file.schema_arrow.metadata or {}).get(_KEY, b""), shown(str(self.path)))
        present = [name for name in ("index", "name", "label") if name in self.file.schema_arrow.names]
        try:
            table = self.file.read(columns=present)
        except (self.arrow.ArrowException, OSError) as error:
            raise _damaged(self.path, error) from error
        labels = table["label"].to_numpy() if "label" in present else None
        return facts, table["name"].to_pylist(), table["index"].to_numpy(), labels

    def blocks(self) -> Iterator[np.ndarray]:
        try:
            for batch in self.file.iter_batches(BLOCK_ROWS, columns=["vector"]):
                column = batch.column(0)
                yield column.flatten().to_numpy(zero_copy_only=False).reshape(-1, column.type.list_size)
        except (self.arrow.ArrowException, OSError) as error:
            raise _damaged(self.path, error) from error


class _NpyVectors:
    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise _damaged(path, error) from error

    def columns(self) -> _Columns:
        beside = json_beside(self.path)
        try:
            known = json.loads(beside.read_text(encoding="utf-8"))
            facts = facts_from_json(json.dumps(known["facts"]), str(beside))
            names, indices, labels = known["names"], known["indices"], known["labels"]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise BadData(
                f"{beside} is missing or damaged: the .npy alone does not say what it holds. Embed again"
            ) from error
        if self.array.shape != (len(names), facts.dims):
            raise BadData(f"{self.path} and {beside.name} do not belong together. Embed again")
        return facts, names, np.asarray(indices, np.int64), np.asarray(labels, np.int64) if labels else None

    def blocks(self) -> Iterator[np.ndarray]:
        for first in range(0, len(self.array), BLOCK_ROWS):
            yield self.array[first : first + BLOCK_ROWS]


def _damaged(path: Path, error: Exception) -> BadData:
    return BadData(f"{path} is damaged or no embedding; make it again. ({shown(own_words(error))})")
