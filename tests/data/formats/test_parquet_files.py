"""Tables of images, tables of other things and photos in one folder: which are taken, and what is said of the rest."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_makers import make_folder, make_parquet, png

from disco_zoo.data.open_source import open_source
from disco_zoo.errors import BadData


@pytest.mark.parametrize("place", ["", "data", "emb"])
def test_tables_without_images_among_photos_are_passed_over(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An embedding that was written into the folder of its photos, a table of facts beside them."""
    make_folder(tmp_path / "photos")
    expected = open_source(tmp_path / "photos")
    folder = tmp_path / "photos" / place
    folder.mkdir(exist_ok=True)
    for name in ("emb.parquet", "facts.parquet"):
        pq.write_table(pa.table({"name": ["a"], "vector": [[1.0, 2.0]]}), folder / name)
    found = open_source(tmp_path / "photos")
    assert [found.path(i) for i in range(len(found))] == [expected.path(i) for i in range(len(expected))]
    assert found.origin.left_out == {".parquet": 2}  # what run.json keeps
    assert "emb.parquet and 1 more without a column of images, passed over" in capsys.readouterr().err


def test_a_table_without_images_alone_is_refused_by_its_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"name": ["a"]}), tmp_path / "facts.parquet")
    (tmp_path / ".ipynb_checkpoints").mkdir()  # of a tool, and no photo
    (tmp_path / ".ipynb_checkpoints" / "a.png").write_bytes(png(0))
    with pytest.raises(BadData, match=r"facts.parquet has no column of encoded images; it has: name \(string\)"):
        open_source(tmp_path)


@pytest.mark.parametrize("place", ["", "data"])
def test_photos_beside_a_table_of_images_are_said(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_parquet(tmp_path / place / "train.parquet")
    (tmp_path / "cat").mkdir()
    for name in ("a.png", "cat/b.png"):
        (tmp_path / name).write_bytes(png(0))
    assert open_source(tmp_path).origin.notes == ("2 image files beside the tables left out",)
    assert "2 image files beside the tables left out" in capsys.readouterr().err


def test_a_table_of_facts_beside_tables_of_images_is_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = len(open_source(make_parquet(tmp_path / "shards" / "z.parquet").parent))
    pq.write_table(pa.table({"name": ["a"]}), tmp_path / "shards" / "a.parquet")
    source = open_source(tmp_path / "shards")
    assert len(source) == expected
    assert source.origin.notes == ("1 table without images passed over",)
    make_parquet(tmp_path / "hub" / "data" / "train-00000-of-00001.parquet")
    pq.write_table(pa.table({"name": ["a"]}), tmp_path / "hub" / "facts.parquet")
    assert len(open_source(tmp_path / "hub")) == expected
    said = capsys.readouterr().err
    assert "a.parquet without a column of images, passed over" in said
    assert "facts.parquet without a column of images, passed over" in said


def test_a_table_of_bytes_that_are_no_images_does_not_hide_photos(tmp_path: Path) -> None:
    make_folder(tmp_path / "photos")
    expected = len(open_source(tmp_path / "photos"))
    pq.write_table(pa.table({"name": ["a"], "sha": [b"\x01\x02"]}), tmp_path / "photos" / "hashes.parquet")
    assert len(open_source(tmp_path / "photos")) == expected
    pq.write_table(pa.table({"scan": [png(0)]}), tmp_path / "photos" / "scans.parquet")
    assert len(open_source(tmp_path / "photos")) == 1
