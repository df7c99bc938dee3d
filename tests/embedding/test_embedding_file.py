"""Embedding files: what is damaged or foreign is refused in one line."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from embed_makers import written

from disco_zoo.embedding.embedding_file import EmbeddingFile
from disco_zoo.errors import BadData

VECTORS = np.arange(40, dtype=np.float32).reshape(10, 4)


@pytest.mark.parametrize("suffix", ["parquet", "npy"])
def test_rows_come_back_in_any_order_from_any_number_of_pieces(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr("disco_zoo.embedding.embedding_file.BLOCK_ROWS", 3)
    file = written(tmp_path / f"e.{suffix}", VECTORS, labels=np.arange(10) % 2, pieces=3)
    np.testing.assert_array_equal(file.rows([7, 0, 7, 9]), VECTORS[[7, 0, 7, 9]])
    np.testing.assert_array_equal(np.concatenate([block for _, block in file.blocks()]), VECTORS)
    starts = [first for first, _ in file.blocks()]
    assert starts[0] == 0
    assert len(starts) > 3


def test_other_tools_read_the_parquet(tmp_path):
    written(tmp_path / "e.parquet", VECTORS)
    table = pq.read_table(tmp_path / "e.parquet")
    assert table["vector"].to_pylist() == VECTORS.tolist()
    assert table.schema.field("vector").type == pa.list_(pa.float32(), 4)


def test_damaged_and_foreign_files(tmp_path):
    written(tmp_path / "good.parquet", VECTORS)
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "good.parquet").read_bytes()[:-30])
    pq.write_table(pa.table({"name": ["a"], "index": [0], "vector": [[1.0]]}), tmp_path / "foreign.parquet")
    (tmp_path / "x.txt").write_text("words")
    np.save(tmp_path / "alone.npy", VECTORS)
    for name, words in (
        ("god.parquet", "Did you mean 'good.parquet'"),
        ("cut.parquet", "damaged"),
        ("foreign.parquet", "not made by `disco-zoo embed`"),
        ("x.txt", "must end in"),
        ("alone.npy", "alone.json is missing"),
    ):
        with pytest.raises(BadData, match=words) as caught:
            EmbeddingFile(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_an_array_and_the_facts_of_another(tmp_path):
    written(tmp_path / "e.npy", VECTORS)
    written(tmp_path / "f.npy", VECTORS[:5])
    (tmp_path / "f.json").replace(tmp_path / "e.json")
    with pytest.raises(BadData, match="do not belong together"):
        EmbeddingFile(tmp_path / "e.npy")


def test_a_later_format_says_so(tmp_path):
    written(tmp_path / "e.npy", VECTORS)
    known = json.loads((tmp_path / "e.json").read_text())
    known["facts"]["format"] = 99
    (tmp_path / "e.json").write_text(json.dumps(known))
    with pytest.raises(BadData, match="Update disco-zoo"):
        EmbeddingFile(tmp_path / "e.npy")
