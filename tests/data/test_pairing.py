"""Which test images go with training images."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_makers import make_folder, make_parquet, png

from disco_zoo.data.dataset import require_same_classes
from disco_zoo.data.open_source import open_source
from disco_zoo.data.pairing import open_labeled_pair, open_own_pair, open_test_beside
from disco_zoo.errors import BadData


def test_the_sibling_is_found(tmp_path: Path) -> None:
    train = make_parquet(tmp_path / "x_train.parquet")
    make_parquet(tmp_path / "x_test.parquet")
    found = open_test_beside(open_source(train))
    assert found is not None
    assert (len(found), found.split) == (6, "test")


def test_none_where_there_are_none(tmp_path: Path) -> None:
    assert open_test_beside(open_source(make_parquet(tmp_path / "x_train.parquet"))) is None
    assert open_test_beside(open_source(make_folder(tmp_path / "pets"))) is None
    only_train = make_parquet(tmp_path / "y.parquet", split=["train"] * 6)
    assert open_test_beside(open_source(only_train)) is None


def test_damaged_test_images_are_not_taken_for_none(tmp_path: Path) -> None:
    train = make_parquet(tmp_path / "x_train.parquet")
    (tmp_path / "x_test.parquet").write_bytes(train.read_bytes()[:200])
    with pytest.raises(BadData, match="x_test"):
        open_test_beside(open_source(train))


def test_a_labelled_source_of_both_splits_is_a_pair(tmp_path: Path) -> None:
    others = [{"bytes": png(i), "path": f"{i}.png"} for i in reversed(range(6))]
    train, test = make_parquet(tmp_path / "x_train.parquet"), make_parquet(tmp_path / "x_test.parquet", images=others)
    for named in (train, tmp_path):
        pair = open_own_pair(str(named))
        assert pair is not None
        assert [source.split for source in pair] == ["train", "test"]
    assert open_own_pair(str(test)) is None  # its own training images are nowhere named
    assert open_own_pair(str(make_parquet(tmp_path / "y_train.parquet"))) is None


def test_words_and_plain_numbers_are_no_labels_of_one_kind(tmp_path: Path) -> None:
    words = str(make_parquet(tmp_path / "words.parquet", ["owl", "hen"] * 3))
    numbers = str(make_parquet(tmp_path / "numbers.parquet", [0, 1] * 3))
    names = {"label": {"_type": "ClassLabel", "names": ["hen", "owl"]}}
    declared = str(make_parquet(tmp_path / "declared.parquet", [0, 1] * 3, metadata=names))
    for data, eval_data in ((words, numbers), (numbers, words), (str(make_folder(tmp_path / "pets")), numbers)):
        with pytest.raises(BadData, match=r"are words \(.*are numbers\. Make them one kind"):
            require_same_classes(*open_labeled_pair(data, eval_data))
    for data, eval_data in ((declared, numbers), (numbers, declared), (words, declared)):
        require_same_classes(*open_labeled_pair(data, eval_data))
