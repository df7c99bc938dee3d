"""Small models and embeddings for the tests of embedding, searching and exporting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny import MEAN, STD, TinyNet, TinySource
from torch import nn

from disco_zoo.data.dataset import ImageSource
from disco_zoo.embedding.embedding_file import EmbeddingFile, Piece, write_embedding
from disco_zoo.embedding.facts import EmbeddingFacts, facts_of
from disco_zoo.embedding.job import EmbedJob
from disco_zoo.models.load import NamedModel


def tiny_named(seed: int = 0, backbone: nn.Module | None = None, name: str = "tiny") -> NamedModel:
    """A TinyNet at 16 pixels, cut from 18, with BatchNorm statistics of its own."""
    torch.manual_seed(seed)
    if backbone is None:
        backbone = TinyNet()
        backbone(torch.randn(8, 3, 16, 16))
    return NamedModel(name, "tiny", backbone, MEAN, STD, 16, 18)


def tiny_facts(named: NamedModel, source: ImageSource, **changes: Any) -> EmbeddingFacts:
    return facts_of(named, source, **{"data": None, "split": None, "normalised": False, "half": False, **changes})


def tiny_job(
    out: Path, source: ImageSource | None = None, named: NamedModel | None = None, facts: Any = None, **changes: Any
) -> EmbedJob:
    """Parts of 4 images in batches of 3, so that parts end within no batch but batches are cut by parts."""
    source = TinySource() if source is None else source
    named = tiny_named() if named is None else named
    settings = {"batch_size": 3, "part_images": 4, **changes}
    return EmbedJob(named, source, tiny_facts(named, source, **(facts or {})), out, **settings)


def written(
    path: Path,
    vectors: np.ndarray,
    *,
    names: list[str] | None = None,
    labels: Any = None,
    pieces: int = 1,
    **facts: Any,
) -> EmbeddingFile:
    """An embedding file that holds `vectors`, as if TinyNet had made them."""
    names = [f"{row}.png" for row in range(len(vectors))] if names is None else names
    named, source = tiny_named(), TinySource(len(vectors))
    made = tiny_facts(named, source, **facts).finished(vectors.shape[1], {})
    chunks = []
    for rows in np.array_split(np.arange(len(vectors)), pieces):
        chosen = None if labels is None else np.asarray(labels, np.int64)[rows]
        chunks.append(Piece(rows.astype(np.int64), [names[row] for row in rows], chosen, vectors[rows]))
    write_embedding(path, made, len(vectors), chunks)
    return EmbeddingFile(path)
