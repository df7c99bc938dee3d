"""Parquet: which rows, labels and class names a file or a folder of shards stands for."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from data_makers import (
    LABELS,
    PIXELS,
    make_parquet,
    png,
)

from disco_zoo.data.formats import parquet
from disco_zoo.data.formats.parquet import ParquetSource
from disco_zoo.data.open_source import open_source
from disco_zoo.errors import BadData, UnreadableImage


@pytest.mark.parametrize("word", ["test", "val", "validation"])
def test_parquet_test_split_is_the_sibling(tmp_path: Path, word: str) -> None:
    train = make_parquet(tmp_path / "pets_train.parquet")
    make_parquet(tmp_path / f"pets_{word}.parquet", [1, 1, 1, 1, 1, 0])
    assert open_source(train, "test").labels == [1, 1, 1, 1, 1, 0]
    assert open_source(train, "train").labels == LABELS
    assert open_source(tmp_path / f"pets_{word}.parquet", "test").labels == [1, 1, 1, 1, 1, 0]


@pytest.mark.parametrize("layout", ["{}-{:05d}-of-{n:05d}.parquet", "data/{}-{:05d}.parquet", "{}/{:04d}.parquet"])
def test_folder_of_shards(tmp_path: Path, layout: str, capsys: pytest.CaptureFixture[str]) -> None:
    make_parquet(tmp_path / layout.format("train", 0, n=2))
    make_parquet(tmp_path / layout.format("train", 1, n=2), [2] * 6)
    make_parquet(tmp_path / layout.format("test", 0, n=1), [-1] * 6)  # a secret test set
    make_parquet(tmp_path / layout.format("validation", 0, n=1), [1] * 6)
    train = open_source(tmp_path, "train")
    assert train.labels == LABELS + [2] * 6
    assert train.image(10).tobytes() == PIXELS[4].tobytes()
    test = open_source(tmp_path, "test")
    assert (test.labels, test.origin.split, train.origin.split) == (
        [1] * 6,
        "files named validation",
        "files named train",
    )
    line = f"{tmp_path}: the 6 test images are those of files named validation; files named test have no labels\n"
    assert line in capsys.readouterr().err


def test_a_part_of_a_set_is_no_set(tmp_path: Path) -> None:
    for number in (0, 2):
        make_parquet(tmp_path / f"train-{number:05d}-of-00003.parquet")
    with pytest.raises(BadData, match=r"holds 2 of the 3 files train-\*-of-00003\.parquet.*--resume"):
        open_source(tmp_path)
    make_parquet(tmp_path / "train-00001-of-00003.parquet")
    assert len(open_source(tmp_path)) == 3 * len(LABELS)


def test_split_column_selects_rows(tmp_path: Path) -> None:
    path = make_parquet(tmp_path / "pets.parquet", split=["train", "val"] * 3)
    train, test = open_source(path, "train"), open_source(path, "test")
    assert (train.labels, test.labels) == ([0, 0, 1], [0, 1, 1])
    assert test.image(2).tobytes() == PIXELS[5].tobytes()


def test_parquet_without_labels_and_with_plain_bytes(tmp_path: Path) -> None:
    path = make_parquet(tmp_path / "p.parquet", None, images=[png(i) for i in range(6)], caption=["a"] * 6)
    source = open_source(path)
    assert source.labels is None
    assert source.image(5).tobytes() == PIXELS[5].tobytes()
    assert source.path(5) == "p.parquet row 5"


def test_parquet_labels_as_words_gaps_and_declared_names(tmp_path: Path) -> None:
    words = open_source(make_parquet(tmp_path / "a.parquet", ["dog", "cat", "dog", "emu", "cat", "cat"]))
    assert (words.labels, words.class_names) == ([1, 0, 1, 2, 0, 0], ["cat", "dog", "emu"])
    assert open_source(make_parquet(tmp_path / "b.parquet", [0, None, 1, 1, -1, 1])).labels == [0, -1, 1, 1, -1, 1]
    floats = open_source(make_parquet(tmp_path / "e.parquet", [0.0, math.nan, 1.0, 1.0, -1.0, 2.0]))
    assert (floats.labels, floats.num_unlabeled) == ([0, -1, 1, 1, -1, 2], 2)
    assert open_source(make_parquet(tmp_path / "f.parquet", [0.5, 1.0, 1.0, 1.0, 2.0, 2.0])).labels is None
    gaps = open_source(make_parquet(tmp_path / "g.parquet", ["dog", None, "", "cat", "dog", "cat"]))
    assert (gaps.labels, gaps.class_names) == ([1, -1, -1, 0, 1, 0], ["cat", "dog"])
    for none in ([None] * 6, [-1] * 6):
        assert open_source(make_parquet(tmp_path / "h.parquet", none)).labels is None
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["hen", "owl"]}}
    declared = open_source(make_parquet(tmp_path / "c.parquet", metadata=features))
    assert declared.class_names == ["hen", "owl"]
    other = make_parquet(tmp_path / "d.parquet", None, fine_label=LABELS, coarse_label=[0] * 6)
    assert open_source(other).labels == LABELS


def test_class_names_from_stored_folders(tmp_path: Path) -> None:
    folders = ["hen", "hen", "hen", "owl", "owl", "owl"]
    cells = [{"bytes": png(i), "path": f"{folders[i]}/{i}.png"} for i in range(6)]
    assert open_source(make_parquet(tmp_path / "a.parquet", images=cells)).class_names == ["hen", "owl"]
    mixed = make_parquet(tmp_path / "b.parquet", [0, 1, 0, 1, 0, 1], images=cells)
    assert open_source(mixed).class_names is None


def test_row_group_cache_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("disco_zoo.data.formats.parquet.CACHE_BYTES", 1)
    source = open_source(make_parquet(tmp_path / "a.parquet"))
    for index in (0, 5, 1, 4, 2, 3):
        assert source.image(index).tobytes() == PIXELS[index].tobytes()
        assert len(source._cache) == 1  # type: ignore[attr-defined]


def test_more_shards_than_files_that_may_be_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "OPEN_FILES", 2)
    for number in range(5):
        make_parquet(tmp_path / f"train-{number:05d}-of-00005.parquet", [number] * 6)
    source = open_source(tmp_path, "train")
    assert source.labels == [number for number in range(5) for _ in range(6)]
    open_now: list[int] = []
    former = ParquetSource._opened

    def counting(self: ParquetSource, number: int) -> Any:
        handle = former(self, number)
        open_now.append(len(self._handles))
        return handle

    monkeypatch.setattr(ParquetSource, "_opened", counting)
    for index in (0, 29, 7, 13, 20, 1):
        assert source.image(index).tobytes() == PIXELS[index % 6].tobytes()
    assert max(open_now) == 2


@pytest.mark.parametrize(
    ("column", "values", "labels"),
    [
        ("label", [True, False, True, False, True, True], [1, 0, 1, 0, 1, 1]),
        ("Label", [0, 1, 0, 1, 2, 2], [0, 1, 0, 1, 2, 2]),
        ("LABEL", ["a", "b", "a", None, "b", "b"], [0, 1, 0, -1, 1, 1]),
        ("Class", [0.0, 1.0, float("nan"), 1.0, 0.0, 0.0], [0, 1, -1, 1, 0, 0]),
    ],
)
def test_labels_of_truth_values_and_names_in_any_case(
    column: str, values: list[Any], labels: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = open_source(make_parquet(tmp_path / "x.parquet", labels=None, **{column: values}))
    assert source.labels is not None
    assert list(source.labels) == labels
    assert source.origin.labels == f"the column {column}"
    assert "no labels" not in capsys.readouterr().err


@pytest.mark.parametrize("values", [[0.5, 0.25, 1.0, 1.5, 0.1, 0.2], [[0], [1], [0, 1], [], [1], [0]], [-1] * 6])
def test_a_column_of_labels_that_holds_none_is_said(
    values: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = open_source(make_parquet(tmp_path / "x.parquet", labels=values))
    assert source.labels is None
    assert "the column label holds no class of any image" in " ".join(capsys.readouterr().err.split())


def test_rows_of_a_split_in_several_spellings_of_its_word(tmp_path: Path) -> None:
    path = make_parquet(tmp_path / "x.parquet", Split=["TRAIN", "train", "Train", "validation", "Test", "test"])
    assert [len(open_source(path, split)) for split in ("train", "test")] == [3, 2]


NAMED = {"label": {"_type": "ClassLabel", "names": ["hen", "owl"]}}
OTHERS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no labels": ({}, {"labels": None}, "labels are in no column here and numbers in 'label' there"),
    "labels in the second alone": ({"labels": None}, {}, "labels are numbers in 'label' here and in no column there"),
    "words": ({}, {"labels": [*"abcabc"]}, "labels are words in 'label' here and numbers in 'label' there"),
    "numbers": ({"labels": [*"abcabc"]}, {}, "labels are numbers in 'label' here and words in 'label' there"),
    "another column": ({}, {"labels": None, "target": LABELS}, "labels are numbers in 'target' here and"),
    "other classes": (
        {"metadata": NAMED},
        {"metadata": {"label": {"_type": "ClassLabel", "names": ["owl", "hen"]}}},
        "class names are owl, hen here and hen, owl there",
    ),
    "no split": ({"split": ["train"] * 6}, {}, "splits are in no column here and in 'split' there"),
    "plain bytes": ({}, {"images": [png(i) for i in range(6)]}, "images are bytes here and structs there"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_files_of_a_set_that_hold_different_things_are_refused(case: str, tmp_path: Path) -> None:
    first, second, words = OTHERS[case]
    make_parquet(tmp_path / "train-0.parquet", **first)
    make_parquet(tmp_path / "train-1.parquet", **second)
    with pytest.raises(BadData) as error:
        open_source(tmp_path)
    assert str(error.value).startswith(f"train-1.parquet and train-0.parquet are no files of one set: {words}")


@pytest.mark.parametrize(
    ("second", "labels"),
    [
        ([0.0, math.nan, 1.0, 1.0, 2.0, 2.0], [0, -1, 1, 1, 2, 2]),  # as pandas writes whole numbers with a gap
        ([True, False, True, True, True, False], [1, 0, 1, 1, 1, 0]),
        ([None] * 6, [-1] * 6),
        ([0.5, 1.0, 1.0, 1.0, 2.0, 2.0], None),
    ],
)
def test_numbers_of_different_types_are_numbers(second: list[Any], labels: list[int] | None, tmp_path: Path) -> None:
    make_parquet(tmp_path / "train-0.parquet")
    make_parquet(tmp_path / "train-1.parquet", second)
    assert open_source(tmp_path).labels == (None if labels is None else LABELS + labels)


def test_stored_paths_begin_at_the_folder_of_their_own_file(tmp_path: Path) -> None:
    for part in range(2):
        (tmp_path / f"part{part}").mkdir()
        (tmp_path / f"part{part}" / "x.png").write_bytes(png(part))
        cells = [{"bytes": png(5), "path": "5.png"}, {"bytes": None, "path": "x.png"}]
        make_parquet(tmp_path / f"part{part}" / "rows.parquet", [part, part], images=cells)
    source = open_source(tmp_path)
    assert [source.encoded(index) for index in range(4)] == [png(5), png(0), png(5), png(1)]


def test_an_empty_cell_is_an_unreadable_image(tmp_path: Path) -> None:
    cells = [{"bytes": png(i), "path": f"{'hen' if i < 3 else 'owl'}/{i}.png"} for i in range(6)]
    source = open_source(make_parquet(tmp_path / "x.parquet", images=[cells[0], None, *cells[2:]]))
    assert source.labels == LABELS
    source.fingerprint()
    with pytest.raises(UnreadableImage, match=r"image 1 \(x.parquet row 1\) is unreadable: the cell is empty"):
        source.image(1)


def test_declared_columns_are_taken_by_name_and_before_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = [{"bytes": png(i), "path": None} for i in range(6)]
    features = {
        "conditioning_image": {"_type": "Image"},
        "image": {"_type": "Image"},
        "y": {"_type": "Value", "dtype": "int64"},
        "split": {"_type": "ClassLabel", "names": ["a"]},
        "species": {"_type": "ClassLabel", "names": ["hen", "owl"]},
    }
    columns = {"conditioning_image": cells[::-1], "y": [9] * 6, "split": [0] * 6, "species": LABELS}
    path = make_parquet(tmp_path / "x.parquet", None, cells, features, **columns)
    pq.write_table(pq.read_table(path).select([*features]), path)
    source = open_source(path)
    assert source.image(0).tobytes() == PIXELS[0].tobytes()
    assert (source.labels, source.class_names) == (LABELS, ["hen", "owl"])
    assert "column image, not of conditioning_image" in " ".join(capsys.readouterr().err.split())
