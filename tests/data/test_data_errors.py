"""What a user gets wrong with --data: one line that says what to type next; and backends with a prefix."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_makers import (
    LABELS,
    PIXELS,
    make_class_tar,
    make_folder,
    make_parquet,
    make_tar,
)
from fake_stream import FakeStream

from disco_zoo.data.dataset import require_index, require_same_classes
from disco_zoo.data.open_source import open_source
from disco_zoo.errors import BadData, DiscoZooError, MissingExtra


def say(data: str | Path, split: str = "train") -> str:
    """Return the one-line message of the error that opening raises."""
    with pytest.raises(DiscoZooError) as caught:
        open_source(data, split)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_missing_paths_get_a_hint(tmp_path: Path) -> None:
    make_parquet(tmp_path / "cifar10_train.parquet")
    assert "Did you mean 'cifar10_train.parquet'?" in say(tmp_path / "cifar_train.parquet")
    assert "Give a folder of images" in say(tmp_path / "zzz")
    assert "Did you mean 'sample'?" in say("smaple")
    assert "no split 'tset'" in say("sample", "tset")


def test_empty_sources(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("x")
    (tmp_path / "tars").mkdir()
    make_class_tar(tmp_path / "tars" / "a.tar")
    assert "is empty" in say(tmp_path / "empty")
    assert "only: 1 .txt" in say(tmp_path / "texts")
    assert "disco-zoo data index" in say(tmp_path / "tars")
    assert "holds no images" in say(make_tar(tmp_path / "a.tar", {"a.txt": b"x"}))
    pq.write_table(pq.read_table(make_parquet(tmp_path / "b.parquet")).slice(0, 0), tmp_path / "b.parquet")
    assert "holds no images" in say(tmp_path / "b.parquet")


def test_damaged_files(tmp_path: Path) -> None:
    whole = make_parquet(tmp_path / "a.parquet").read_bytes()
    for content in (whole[:-20], whole[:3], b""):
        (tmp_path / "a.parquet").write_bytes(content)
        assert "damaged or no parquet file" in say(tmp_path / "a.parquet")
    tar = make_class_tar(tmp_path / "a.tar").read_bytes()
    for content in (tar[:700], b"text " * 200, b""):
        (tmp_path / "a.tar").write_bytes(content)
        assert "damaged or no plain .tar" in say(tmp_path / "a.tar")
    (tmp_path / "a.zip").write_bytes(b"PK")
    assert "neither a folder, a .tar nor a .parquet" in say(tmp_path / "a.zip")


def test_parquet_without_images_names_its_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "label": [0]}), tmp_path / "a.parquet")
    message = say(tmp_path / "a.parquet")
    assert "text (string)" in message
    assert "label (int64)" in message


def test_split_that_is_not_there(tmp_path: Path) -> None:
    make_folder(tmp_path / "set" / "val")
    assert "has val/ but no train/" in say(tmp_path / "set")
    path = make_parquet(tmp_path / "a.parquet", split=["train"] * 6)
    assert "no test rows" in say(path, "test")


def test_classes_must_agree(tmp_path: Path) -> None:
    train = open_source(make_folder(tmp_path / "train"))
    test = open_source(make_folder(tmp_path / "test"), "test")
    require_same_classes(train, test)
    os.rename(tmp_path / "test" / "dog", tmp_path / "test" / "emu")
    with pytest.raises(BadData, match=r"differ: dog, emu"):
        require_same_classes(train, open_source(tmp_path / "test", "test"))


# --- backends with a prefix


def test_stream_yields_but_has_no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timm.data.create_dataset", lambda name, **settings: FakeStream())
    monkeypatch.setattr("disco_zoo.data.formats.timm_prefixed.PREFIX_MODULES", {})
    source = open_source("wds/shards")
    assert not source.has_index
    rows = list(source)
    assert [(image.mode, position, label) for image, position, label in rows] == [
        ("RGB", 0, 1),
        ("RGB", 1, 0),
    ]
    with pytest.raises(BadData, match=r"DisCo needs a source with an index, and wds/shards is a stream\. Pack"):
        require_index(source, "DisCo")
    with pytest.raises(BadData, match="is a stream"):
        source.image(0)
    require_index(open_source("sample"), "DisCo")


def test_backend_errors_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "torch/cifar10@FOLDER" in say("torch/cifar10")
    assert "does not download" in say(f"torch/cifar10@{tmp_path}")
    assert "Unknown torchvision dataset" in say(f"torch/cifar11@{tmp_path}")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r'pip install "disco-zoo\[streams\]"'):
        open_source("hfds/uoft-cs/cifar10")


def test_hugging_face_dataset_equals_its_parquet(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    for column in ("image", "img", "photo", "scan"):
        folder = tmp_path / column
        path = make_parquet(folder / "data" / "train-00000-of-00001.parquet")
        table = pq.read_table(path).rename_columns([column, "label"])
        names = {column: {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["hen", "owl"]}}
        meta = {"huggingface": json.dumps({"info": {"features": names}})}
        pq.write_table(table.replace_schema_metadata(meta), path)
        source = open_source(f"hfds/{folder}@{tmp_path / 'cache'}")
        assert (source.labels, source.class_names) == (LABELS, ["hen", "owl"])
        assert source.image(5).tobytes() == PIXELS[5].tobytes()
        assert source.fingerprint() == open_source(folder).fingerprint()


def test_hub_columns_of_images_are_those_of_parquet(tmp_path: Path) -> None:
    """Without metadata, as raw bytes, beside a column called image that is none, and beside one that is empty."""
    pytest.importorskip("datasets")
    table = pq.read_table(make_parquet(tmp_path / "images.parquet"))
    cells, label = table["image"].combine_chunks(), table["label"]
    empty = pa.StructArray.from_arrays(
        [pa.nulls(len(cells), pa.binary()), pa.nulls(len(cells), pa.string())], ["bytes", "path"]
    )
    names, numbers = pa.array([str(row) for row in range(len(cells))]), pa.array(range(len(cells)))
    tables = {
        "struct": {"img": cells},
        "bytes": {"content": cells.field("bytes")},
        "names": {"image": names, "photo": cells},
        "numbers": {"image": numbers, "photo": cells},
        "empty": {"image": empty, "photo": cells},
    }
    for name, columns in tables.items():
        folder = tmp_path / name
        folder.mkdir()
        pq.write_table(pa.table({**columns, "label": label}), folder / "train.parquet")
        source = open_source(f"hfds/{folder}@{tmp_path / 'cache'}")
        assert source.image(5).tobytes() == PIXELS[5].tobytes(), name
        assert list(source.labels or ()) == LABELS
    pq.write_table(pa.table({"name": names, "label": label}), tmp_path / "names" / "train.parquet")
    with pytest.raises(
        BadData, match=r"datasets cannot open the train split .*: no column of images among: name, label$"
    ):
        open_source(f"hfds/{tmp_path / 'names'}@{tmp_path / 'cache'}")


def test_a_hub_stream_says_which_of_its_columns_the_images_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("datasets")
    cells = pq.read_table(make_parquet(tmp_path / "images.parquet"))["image"].combine_chunks()
    (tmp_path / "two").mkdir()
    pq.write_table(pa.table({"left": cells, "right": cells}), tmp_path / "two" / "train.parquet")
    source = open_source(f"hfids/{tmp_path / 'two'}@{tmp_path / 'cache'}")
    note = "the images are those of the column left, not of right"
    assert source.origin.notes == (note,)
    assert note in capsys.readouterr().err
