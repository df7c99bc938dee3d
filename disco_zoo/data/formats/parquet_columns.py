"""Which columns of a table hold images, labels and split, and what their cells mean.

A column is known by its declared Hugging Face feature, else by name and type.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disco_zoo.errors import BadData, require

# Most wanted first.
IMAGE_COLUMNS = ("image", "img", "images", "picture", "photo", "jpg", "jpeg", "png", "webp", "bytes")
LABEL_COLUMNS = (
    "label",
    "labels",
    "target",
    "targets",
    "class",
    "class_id",
    "class_label",
    "fine_label",
    "category",
    "y",
    "coarse_label",
)


def features(schema: Any) -> dict[str, Any]:
    """Return the Hugging Face features in the schema's metadata, or nothing."""
    try:
        found = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _declared(schema: Any, columns: Iterable[str], kind: str) -> list[str]:
    """Return the columns whose Hugging Face feature is of this kind."""
    found = features(schema)
    return [c for c in columns if isinstance(found.get(c), dict) and found[c].get("_type") == kind]


def _is_bytes(kind: Any) -> bool:
    types = require("pyarrow", "train").types
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def image_column(schema: Any, path: Path) -> tuple[str, bool]:
    """Return the image column's name and whether it is a struct of bytes and path.

    Raises:
        BadData: No column can hold encoded images; the message names those there are.
    """
    types = require("pyarrow", "train").types
    is_struct: dict[str, bool] = {}
    for field in schema:
        children = {field.type.field(i).name: field.type.field(i).type for i in range(field.type.num_fields)}
        if types.is_struct(field.type) and "bytes" in children and _is_bytes(children["bytes"]):
            is_struct[field.name] = True
        elif _is_bytes(field.type):
            is_struct[field.name] = False
    for column in (
        *_declared(schema, is_struct, "Image"),
        *(n for n in IMAGE_COLUMNS if n in is_struct),
        *is_struct,
    ):
        return column, is_struct[column]
    found = ", ".join(f"{field.name} ({field.type})" for field in schema) or "none"
    raise BadData(f"{path.name} has no column of encoded images; it has: {found}. Store them as 'image'.")


def label_column(schema: Any) -> str | None:
    """Return the label column, or None."""
    types = require("pyarrow", "train").types
    usable = [
        field.name
        for field in schema
        if types.is_integer(field.type)
        or types.is_boolean(field.type)
        or types.is_string(field.type)
        or types.is_large_string(field.type)
        or types.is_dictionary(field.type)
        or (types.is_floating(field.type) and field.name.lower() in LABEL_COLUMNS)  # whole numbers, where gaps are NaN
    ]
    known = [column for name in LABEL_COLUMNS for column in usable if column.lower() == name]
    return next(iter([*known, *_declared(schema, usable, "ClassLabel")]), None)


def called_as_labels(schema: Any) -> str | None:
    """The first column that is called as labels are, whatever it holds, or None."""
    named = [column for name in LABEL_COLUMNS for column in schema.names if column.lower() == name]
    return next(iter(named), None)


def split_column(schema: Any) -> str | None:
    """Return the column that says "train" or "test" row by row, or None."""
    types = require("pyarrow", "train").types
    for field in schema:
        kind = field.type.value_type if types.is_dictionary(field.type) else field.type
        if field.name.lower() == "split" and (types.is_string(kind) or types.is_large_string(kind)):
            return str(field.name)
    return None


def as_labels(values: Any) -> tuple[NDArray[np.int64] | None, list[str] | None]:
    """Turn a chunked array into labels int64 (N,), and into names where it holds words (numbered in sorted order).

    A row without a label (null, NaN, an empty word, a negative number) has -1. Numbers that are not whole, and rows
    that all lack one, give no labels.
    """
    kind = values.type
    if hasattr(kind, "value_type"):  # a dictionary: the words, not their codes
        values = values.cast(kind.value_type)
    if _is_text(values.type):
        return _word_labels(values)
    if require("pyarrow", "train").types.is_boolean(values.type):
        values = values.cast("int64")
    numbers = values.to_numpy(zero_copy_only=False) if values.num_chunks else np.zeros(0)
    if numbers.dtype.kind == "f":  # also whole numbers with gaps
        known = np.isfinite(numbers)
        if (numbers[known] != np.floor(numbers[known])).any():
            return None, None
        numbers = np.where(known, numbers, -1)
    labels = np.maximum(numbers.astype(np.int64), -1)
    return (labels, None) if len(labels) and labels.max() >= 0 else (None, None)


def _word_labels(values: Any) -> tuple[NDArray[np.int64] | None, list[str] | None]:
    coded = values.dictionary_encode().unify_dictionaries()
    words = coded.chunk(0).dictionary.to_pylist() if coded.num_chunks else []
    names = sorted(word for word in words if word)
    rank = {name: label for label, name in enumerate(names)}
    number = np.asarray([*(rank.get(word, -1) for word in words), -1], dtype=np.int64)  # the last one is for null
    chunks = [number[chunk.indices.fill_null(len(words)).to_numpy()] for chunk in coded.chunks]
    return (np.concatenate(chunks), names) if names else (None, None)


def _is_text(kind: Any) -> bool:
    types = require("pyarrow", "train").types
    return bool(types.is_string(kind) or types.is_large_string(kind))


def hash_cell(digest: hashlib._Hash, encoded: Any, stored_path: str | None) -> None:
    """Feed the digest with one image's bytes, or with its path where the table holds no bytes."""
    content = encoded.as_buffer() if encoded.is_valid else (stored_path or "").encode()
    digest.update(len(content).to_bytes(8, "little"))
    digest.update(content)
