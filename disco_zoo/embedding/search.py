"""The images most like a picture, in an embedding on disk: `disco_zoo.search`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from disco_zoo.core.files import require_folder, write_out
from disco_zoo.core.launcher import chosen_device
from disco_zoo.embedding.embedding_file import EmbeddingFile
from disco_zoo.embedding.nearest_rows import nearest_rows
from disco_zoo.embedding.query import Pictures, resolve_queries
from disco_zoo.embedding.results import Found, as_json, as_page, as_table
from disco_zoo.errors import CannotWrite, require
from disco_zoo.models.engine import EngineName


@dataclass(frozen=True)
class SearchResult:
    """The result of a search: the nearest rows of each query."""

    file: EmbeddingFile
    found: tuple[Found, ...]

    def as_table(self) -> str:
        """One block a query: rank, cosine, class and name of each hit."""
        return as_table(self.file, self.found)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return as_json(self.file, self.found)


def search(
    queries: str | Sequence[str],
    embedding: EmbeddingFile | Path | str,
    count: int = 12,
    *,
    page: Path | str | None = None,
    images: str | None = None,
    model: str | None = None,
    device: str = "auto",
    engine: EngineName = "auto",
) -> SearchResult:
    """Find the embedded images nearest to each query by cosine.

    Args:
        queries: image files, folders, names in the embedding, or other embeddings.
        embedding: what `disco_zoo.embed` gives, or the path of its file.
        count: hits of each query.
        page: write an HTML page with the pictures, too.
        images: where the embedded images are now; None for where they were.
        engine: what computes the queries' features; "auto" is PyTorch for a few.
        model: embeds the queries and must have the weights of the embedding's; None for that one.

    Raises:
        BadData: nothing of a query's name, too many queries, images that are gone.
        CannotWrite: the page.
        MissingExtra: no faiss.
    """
    require("faiss", "train")
    file = embedding if isinstance(embedding, EmbeddingFile) else EmbeddingFile(Path(embedding))
    pictures = Pictures(file, images)
    if page is not None:  # what cannot be written or shown is reported before the search
        if Path(page).is_dir():
            raise CannotWrite(f"{page} is a folder. Choose another name for --html")
        require_folder(Path(page).parent)
        pictures.check()
    asked = resolve_queries(
        [queries] if isinstance(queries, str) else queries,
        file,
        pictures=pictures,
        model=model,
        device=chosen_device(device),
        engine=engine,
    )
    hits = nearest_rows(file, np.stack([one.vector for one in asked]), count, [one.own_row for one in asked])
    found = tuple(Found(one, nearest) for one, nearest in zip(asked, hits, strict=True))
    if page is not None:
        text = as_page(file, found, pictures)
        write_out(Path(page), lambda partial: partial.write_text(text, encoding="utf-8"))
    return SearchResult(file, found)
