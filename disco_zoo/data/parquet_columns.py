"""Which columns of a table hold images, labels and split, and what their cells mean.

A column is known by its declared Hugging Face feature, else by name and type.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from disco_zoo.core.console import say_once
from disco_zoo.errors import BadData, require, shown

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


def _by_name(columns: Iterable[str], names: Sequence[str]) -> list[str]:
    """The columns that are called so, most wanted first, then the others."""
    return sorted(columns, key=lambda column: names.index(column.lower()) if column.lower() in names else len(names))


def image_columns(schema: Any) -> dict[str, bool]:
    """The declared columns of images, else all of bytes, most wanted first; and whether each is a struct with path."""
    types = require("pyarrow", "train").types
    is_struct: dict[str, bool] = {}
    for field in schema:
        children = {field.type.field(i).name: field.type.field(i).type for i in range(field.type.num_fields)}
        if types.is_struct(field.type) and "bytes" in children and _is_bytes(children["bytes"]):
            is_struct[field.name] = True
        elif _is_bytes(field.type):
            is_struct[field.name] = False
    columns = _by_name(_declared(schema, is_struct, "Image") or is_struct, IMAGE_COLUMNS)
    return {column: is_struct[column] for column in columns}


def is_declared_image(schema: Any, column: str) -> bool:
    """Whether a column is one of images by its feature, by its name, or as a struct of bytes and path."""
    types = require("pyarrow", "train").types
    is_called = column.lower() in IMAGE_COLUMNS or bool(_declared(schema, [column], "Image"))
    return is_called or bool(types.is_struct(schema.field(column).type))


def is_image_bytes(cell: bytes | None) -> bool:
    """Whether a file of these bytes begins as an image does; also where there are none."""
    if not cell:
        return True
    try:
        Image.open(io.BytesIO(cell))
    except UnidentifiedImageError:
        return False
    except (OSError, ValueError, Image.DecompressionBombError):  # damaged, or too large: what is said of it later
        return True
    return True


def image_column(schema: Any, path: Path) -> tuple[str, bool]:
    """Return the image column's name and whether it is a struct of bytes and path.

    Raises:
        BadData: No column can hold encoded images; the message names those there are.
    """
    if columns := image_columns(schema):
        return next(iter(columns.items()))
    found = ", ".join(f"{field.name} ({field.type})" for field in schema) or "none"
    raise BadData(f"{path.name} has no column of encoded images; it has: {found}. Store them as 'image'.")


def say_other_images(schema: Any, column: str, name: str) -> tuple[str, ...]:
    """Say, and return, which column of images is used; nothing where there is but one."""
    if not (others := [other for other in image_columns(schema) if other != column]):
        return ()
    note = f"the images are those of the column {column}, not of {', '.join(others)}"
    say_once(f"{name}: {note}")
    return (note,)


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
    declared = [column for column in _declared(schema, usable, "ClassLabel") if column.lower() != "split"]
    known = [column for column in usable if column.lower() in LABEL_COLUMNS]
    return next(iter(_by_name(declared or known, LABEL_COLUMNS)), None)


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


def declared_names(schema: Any, column: str | None) -> list[str] | None:
    """The class names that the Hugging Face metadata give the labels in a column, or None."""
    feature = features(schema).get(column or "")
    return feature.get("names") if isinstance(feature, dict) else None


def require_alike(path: Path, schema: Any, first: Path, first_schema: Any) -> None:
    """Refuse a file of a set that holds something else than the first one; a column of nulls alone may be anything.

    Raises:
        BadData: names both files and what differs.
    """
    image, _ = image_column(first_schema, first)
    if image not in schema.names:
        raise BadData(f"{path.name} lacks the column '{image}' of {first.name}.")
    here, there = _contents(schema, image), _contents(first_schema, image)
    if _is_null(schema, label_column(first_schema)):
        here["labels"] = there["labels"]
    for what in there:
        if here.get(what, there[what]) != there[what]:
            raise BadData(
                f"{path.name} and {first.name} are no files of one set: {what} are {shown(here[what])} here and "
                f"{shown(there[what])} there. Make them alike, or give one file."
            )


def _contents(schema: Any, image: str) -> dict[str, str]:
    """What files of one set agree in, in words; class names where they are declared."""
    label, split = label_column(schema), split_column(schema)
    found = {
        "images": "structs" if require("pyarrow", "train").types.is_struct(schema.field(image).type) else "bytes",
        "labels": "in no column",
        "splits": "in no column" if split is None else f"in '{split}'",
    }
    if label is not None:
        found["labels"] = f"{'words' if _is_text(_plain(schema.field(label).type)) else 'numbers'} in '{label}'"
    if names := declared_names(schema, label):
        found["class names"] = ", ".join(names)
    return found


def _is_null(schema: Any, column: str | None) -> bool:
    types = require("pyarrow", "train").types
    return column in schema.names and bool(types.is_null(schema.field(column).type))


def _plain(kind: Any) -> Any:
    """The type of the words in a dictionary, else the type itself."""
    return kind.value_type if require("pyarrow", "train").types.is_dictionary(kind) else kind


def common_type(kinds: Sequence[Any]) -> Any:
    """One type for a column that files store in different ones: text, or float64 for numbers, some of them NaN."""
    arrow = require("pyarrow", "train")
    plain = [_plain(kind) for kind in kinds if not arrow.types.is_null(kind)] or [arrow.null()]
    if all(kind == plain[0] for kind in plain):
        return plain[0]
    if all(map(_is_text, plain)):
        return arrow.large_string()
    return plain[0] if any(arrow.types.is_nested(kind) for kind in plain) else arrow.float64()


def as_labels(values: Any) -> tuple[NDArray[np.int64] | None, list[str] | None]:
    """Turn a chunked array into labels int64 (N,), and into names where it holds words (numbered in sorted order).

    A row without a label (null, NaN, an empty word, a negative number) has -1. Numbers that are not whole, and rows
    that all lack one, give no labels.
    """
    values = values.cast(_plain(values.type))  # of a dictionary the words, not their codes
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
