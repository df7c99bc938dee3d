"""What docs/doors.md says of other tools, with the real packages (the extra `doors`); skipped where one is absent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
from embed_makers import written

from disco_zoo.cli import main

NAME = "disco_effb0.disco_lite0_cifar10"
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(50, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def embedding(vectors: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `disco-zoo embed` writes it, in several row groups."""
    return written(tmp_path_factory.mktemp("embedding") / "photos.parquet", vectors, pieces=3).path


def nearest(vectors: np.ndarray, query: np.ndarray, count: int) -> list[str]:
    cosines = vectors @ query / np.linalg.norm(vectors, axis=1)
    return [f"{row}.png" for row in np.argsort(-cosines)[:count]]


def test_the_column_of_vectors_is_a_view(embedding: Path, vectors: np.ndarray) -> None:
    rows = pq.read_table(embedding).combine_chunks()
    found = rows["vector"].chunk(0).flatten().to_numpy(zero_copy_only=True).reshape(len(rows), -1)
    assert np.array_equal(found, vectors)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_lancedb(embedding: Path, vectors: np.ndarray, tmp_path: Path) -> None:
    lancedb = pytest.importorskip("lancedb", reason="the extra doors is not installed")
    table = lancedb.connect(tmp_path / "photos.lance").create_table("photos", pq.read_table(embedding))
    found = table.search(vectors[7]).metric("cosine").limit(5).to_arrow()
    assert found["name"].to_pylist() == nearest(vectors, vectors[7], 5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_qdrant(embedding: Path, vectors: np.ndarray, tmp_path: Path) -> None:
    qdrant = pytest.importorskip("qdrant_client", reason="the extra doors is not installed")
    models = qdrant.models
    rows = pq.read_table(embedding).combine_chunks()
    loaded = rows["vector"].chunk(0).flatten().to_numpy().reshape(len(rows), -1)
    client = qdrant.QdrantClient(path=str(tmp_path / "photos.qdrant"))
    client.create_collection("photos", models.VectorParams(size=loaded.shape[1], distance=models.Distance.COSINE))
    client.upload_collection("photos", loaded, payload=[{"name": name} for name in rows["name"].to_pylist()])
    found = client.query_points("photos", query=vectors[7], limit=5).points
    assert [point.payload["name"] for point in found] == nearest(vectors, vectors[7], 5)
    client.close()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_transformers_computes_timms_features_where_the_dtype_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformers = pytest.importorskip("transformers", minversion="5.0", reason="the extra doors is not installed")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "folder"
    assert main(["publish", NAME, "--to", "my-lab", "--dry-run", "--out", str(folder)]) == 0
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = timm.create_model(NAME, pretrained=True).eval()(images)
        model = transformers.AutoModel.from_pretrained(str(folder), dtype=torch.float32).eval()
        assert torch.equal(model(pixel_values=images).pooler_output, expected)
    # What the page warns of: without it, the type of the file.
    assert next(transformers.AutoModel.from_pretrained(str(folder)).parameters()).dtype == torch.float16
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "- transformers\n" in card
