"""The results of a search: as a table, as JSON, and as a page of pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from disco_zoo.embedding.contact_sheet import Shown, contact_sheet
from disco_zoo.embedding.embedding_file import EmbeddingFile
from disco_zoo.embedding.nearest_rows import Hit
from disco_zoo.embedding.query import Pictures, Query
from disco_zoo.errors import counted, shown


@dataclass(frozen=True)
class Found:
    """The hits of one query, nearest first."""

    query: Query
    hits: Sequence[Hit]


def label_text(file: EmbeddingFile, row: int) -> str | None:
    """The class of a row by name, or by number where names are not known; None without one."""
    if file.labels is None:
        return None
    label, names = int(file.labels[row]), file.facts.class_names
    if label < 0:
        return None
    return names[label] if names is not None and 0 <= label < len(names) else str(label)


def as_table(file: EmbeddingFile, found: Sequence[Found]) -> str:
    """One block a query: rank, cosine, class and name of each hit."""
    blocks = []
    for one in found:
        classes = [label_text(file, hit.row) or "" for hit in one.hits]
        width = max(map(len, classes), default=0)
        lines = [
            f"{rank:>4}  {hit.cosine:7.4f}  {f'{label:{width}}  ' if width else ''}{shown(file.names[hit.row])}"
            for rank, (hit, label) in enumerate(zip(one.hits, classes, strict=True), 1)
        ]
        blocks.append("\n".join([shown(one.query.title), *lines]))
    return "\n\n".join(blocks)


def as_json(file: EmbeddingFile, found: Sequence[Found]) -> dict[str, Any]:
    return {
        "in": str(file.path),
        "model": file.facts.model,
        "weights_sha256": file.facts.weights_sha256,
        "queries": [
            {
                "query": one.query.title,
                "hits": [
                    {
                        "rank": rank,
                        "cosine": hit.cosine,
                        "name": file.names[hit.row],
                        "index": int(file.indices[hit.row]),
                        "label": label_text(file, hit.row),
                    }
                    for rank, hit in enumerate(one.hits, 1)
                ],
            }
            for one in found
        ],
    }


def as_page(file: EmbeddingFile, found: Sequence[Found], pictures: Pictures) -> str:
    """A contact sheet: each query beside its hits."""
    facts = file.facts
    note = f"{counted(len(file), 'image')} embedded by {facts.model} at {facts.image_size} pixels; numbers are cosines"
    rows = []
    for one in found:
        query = Shown(one.query.picture, ("query", one.query.title))
        rows.append((one.query.title, query, [_of_hit(file, hit, pictures) for hit in one.hits]))
    return contact_sheet("Nearest images", note, rows)


def _of_hit(file: EmbeddingFile, hit: Hit, pictures: Pictures) -> Shown:
    label, name = label_text(file, hit.row), file.names[hit.row]
    words = [] if label is None else [label]
    return Shown(partial(pictures.open, hit.row), (f"{hit.cosine:.3f}", *words, os.path.basename(name)), name)
