"""Splits by the names people give them, in any case and usual spelling; a test set is never trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_makers import make_folder, make_parquet, make_tar, png

from disco_zoo.data.open_source import open_source
from disco_zoo.data.pairing import open_labeled_pair, open_test_beside
from disco_zoo.data.split_files import split_word, words
from disco_zoo.errors import BadData, NoTestImages


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("Training", "training"),
        ("TRAIN", "train"),
        ("train_set", "train"),
        ("TrainingSet", "training"),
        ("trainset", "train"),
        ("train2017", "train"),
        ("Train Images", "train"),
        ("Testing", "testing"),
        ("test-data", "test"),
        ("Val", "val"),
        ("valid", "valid"),
        ("steam train", None),
        ("strains", None),
        ("contest", None),
        ("train_test", None),
    ],
)
def test_words_for_splits(name: str, word: str | None) -> None:
    assert split_word(name) == word


def test_words_of_shards() -> None:
    assert {"train", "data"} <= words("Data/TrainSet-00000-of-00002.parquet")
    assert "test" in words("testset.tar")


@pytest.mark.parametrize("wrapper", ["", "archive", "a/b"])
@pytest.mark.parametrize(
    ("train", "test"), [("Training", "Testing"), ("train_set", "VAL"), ("TrainImages", "Test_Images")]
)
@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_splits_in_any_spelling(kind: str, train: str, test: str, wrapper: str, tmp_path: Path) -> None:
    if kind == "folder" and wrapper.count("/"):
        pytest.skip("two folders around the splits are no usual layout")
    members = {f"{wrapper}/{split}/c{n % 3}/{n}.png".lstrip("/"): png(n) for split in (train, test) for n in range(6)}
    members = {name: data for name, data in members.items() if train in name or name[-5] in "012"}
    path = make_tar(tmp_path / "x.tar", members)
    if kind == "folder":
        path = tmp_path / "x"
        for name, data in members.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
    first, second = open_labeled_pair(str(path))
    assert (len(first), len(second)) == (6, 3)
    assert first.class_names == second.class_names == ["c0", "c1", "c2"]
    assert first.origin.split.endswith(train)


@pytest.mark.parametrize("kind", ["folder", "parquet"])
def test_the_sibling_in_any_case(kind: str, tmp_path: Path) -> None:
    if kind == "folder":
        train, _ = make_folder(tmp_path / "Training_A"), make_folder(tmp_path / "testing_a")
    else:
        train, _ = make_parquet(tmp_path / "X_TRAIN.parquet"), make_parquet(tmp_path / "x_Valid.parquet")
    beside = open_test_beside(open_source(train))
    assert beside is not None
    assert len(beside) == 6


@pytest.mark.parametrize("split", ["Train", "TRAINING"])
def test_a_split_column_in_any_case(split: str, tmp_path: Path) -> None:
    path = make_parquet(tmp_path / "x.parquet", split=[split] * 4 + ["Testing"] * 2)
    assert (len(open_source(path)), len(open_source(path, "test"))) == (4, 2)


@pytest.mark.parametrize("kind", ["folder", "tar"])
@pytest.mark.parametrize(
    "inside",
    [
        "Training/Testing/c0/a.png",
        "train/c0/val/a.png",
        "train/test/a.png",
        "cat/train/a.png cat/valid/b.png dog/train/c.png",
    ],
)
def test_a_test_set_among_the_training_images_is_refused(kind: str, inside: str, tmp_path: Path) -> None:
    top = inside.split("/")[0]
    names = [*inside.split(), f"{top}/c0/1.png", f"{top}/c1/2.png"]
    path = make_tar(tmp_path / "x.tar", {name: png(0) for name in [*names, "other/x.png"]})
    if kind == "folder":
        path = tmp_path / "x"
        for name in names:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(png(0))
    with pytest.raises(BadData, match="lies among the training images"):
        open_source(path)


def test_classes_called_valid_and_invalid_are_classes(tmp_path: Path) -> None:
    for name in ("valid", "invalid"):
        for number in range(2):
            path = tmp_path / "x" / "train" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(number))
    assert open_source(tmp_path / "x").class_names == ["invalid", "valid"]


@pytest.mark.parametrize("inner", ["later_7", "c0"])
def test_test_images_inside_the_training_folder_are_refused_whatever_it_is_called(inner: str, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "x")
    make_folder(folder / inner)
    with pytest.raises(BadData, match="would be trained on"):
        open_labeled_pair(str(folder), str(folder / inner))
    with pytest.raises(BadData, match="lie among the test images"):
        open_labeled_pair(str(folder / inner), str(folder))


@pytest.mark.parametrize("kind", ["folder", "tar", "parquet"])
def test_the_same_images_twice_are_said(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    makers = {
        "folder": lambda: make_folder(tmp_path / "x"),
        "parquet": lambda: make_parquet(tmp_path / "x.parquet"),
        "tar": lambda: make_tar(tmp_path / "x.tar", {f"c{n % 2}/{n}.png": png(n) for n in range(4)}),
    }
    path = str(makers[kind]())
    open_labeled_pair(path, path)
    assert f"{path}: the test images are the training images themselves" in capsys.readouterr().err


def test_a_tar_of_training_images_alone_has_no_test_images(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "x.tar", {f"Training/c{n % 2}/{n}.png": png(n) for n in range(4)})
    assert open_source(path).class_names == ["c0", "c1"]
    with pytest.raises(NoTestImages):
        open_source(path, "test")


# --- classes that one of the two lacks


def with_classes(folder: Path, train: list[str], test: list[str]) -> str:
    for split, classes in (("train", train), ("test", test)):
        for number, name in enumerate(classes):
            for part in range(2):
                path = folder / split / name / f"{part}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(png(number))
    return str(folder)


def test_test_images_that_lack_classes_keep_the_training_images_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = with_classes(tmp_path / "x", ["a", "b", "c", "d"], ["b", "d"])
    (tmp_path / "x" / "test" / "c").mkdir()
    train, test = open_labeled_pair(data)
    assert train.class_names == test.class_names == ["a", "b", "c", "d"]
    assert test.labels == [1, 1, 3, 3]
    assert np.array_equal(np.asarray(test.image(0)), np.asarray(open_source(data, "test").image(0)))


def test_one_class_alone_is_a_class_beside_training_images(tmp_path: Path) -> None:
    _, test = open_labeled_pair(with_classes(tmp_path / "x", ["a", "b", "c"], ["b"]))
    assert test.labels == [1, 1]


def test_classes_by_path_are_matched_by_their_folders(tmp_path: Path) -> None:
    data = with_classes(tmp_path / "x", ["p/old", "q/old", "q/new"], ["q/old", "q/new"])
    train, test = open_labeled_pair(data)
    assert train.class_names == ["p/old", "q/new", "q/old"]
    assert sorted(set(test.labels or ())) == [1, 2]


def test_words_in_a_table_are_matched(tmp_path: Path) -> None:
    make_parquet(tmp_path / "x_train.parquet", ["a", "b", "c", "a", "b", "c"])
    make_parquet(tmp_path / "x_test.parquet", ["c", None, "b", "c", "", "b"])
    train, test = open_labeled_pair(str(tmp_path / "x_train.parquet"))
    assert (train.class_names, test.labels) == (["a", "b", "c"], [2, 1, 2, 1])


@pytest.mark.parametrize("kind", ["folder", "tar"])
@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("cats_and_dogs_train", "cats_and_dogs_test"),
        ("x/My-Training-2", "x/my-validation-2"),
    ],
)
def test_folders_that_the_words_for_splits_alone_tell_apart(kind: str, train: str, test: str, tmp_path: Path) -> None:
    names = {f"{train}/c{label}/{n}.png": png(n) for label in range(2) for n in range(2)}
    names |= {f"{test}/c{label}/9.png": png(5) for label in range(2)}
    path = make_tar(tmp_path / "x.tar", names)
    if kind == "folder":
        path = tmp_path / "x"
        for name, data in names.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
    first, second = open_labeled_pair(str(path))
    assert (len(first), len(second)) == (4, 2)
    assert first.class_names == second.class_names == ["c0", "c1"]


def test_several_such_pairs_are_refused_and_so_is_none_of_them_trained_on(tmp_path: Path) -> None:
    for kind in ("cats", "dogs"):
        for split in ("train", "test"):
            make_folder(tmp_path / f"{kind}_{split}")
    with pytest.raises(
        BadData, match=r"cats_test/ lies beside cats_train/ and is called as its test set is; .*cats_train"
    ):
        open_source(tmp_path)


def test_a_second_training_folder_that_is_left_out_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("train", "training"):
        make_folder(tmp_path / name)
    assert len(open_source(tmp_path)) == 6
    assert "trained on train/; training/ is called so, too, and is left out" in " ".join(
        capsys.readouterr().err.split()
    )


def test_a_class_called_as_a_split_hides_no_others_in_silence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # CIFAR-100 has a class "train"
    paths = [f"{kind}/{number}.png" for number, kind in enumerate(("bus", "car", "tram", "train", "van"))]
    for path in paths:
        file = tmp_path / "kinds" / path
        file.parent.mkdir(parents=True)
        file.write_bytes(png(0))
    (tmp_path / "kinds" / "lists").mkdir()
    (tmp_path / "kinds" / "lists" / "all.txt").touch()
    make_tar(tmp_path / "kinds.tar", {path: png(0) for path in paths})
    make_tar(tmp_path / "below.tar", {f"all/{path}": png(0) for path in paths})
    for name in ("kinds", "kinds.tar", "below.tar"):
        source = open_source(tmp_path / name)
        said = capsys.readouterr().err
        assert len(source) == 1
        assert "images in bus/, car/, tram/ and 1 more are left out: they lie beside train/" in said
        assert len(source.origin.notes) == 1


def test_splits_alone_leave_nothing_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "val", "test", "annotations/.hidden"):
        make_folder(tmp_path / "pets" / split)
    make_tar(tmp_path / "pets.tar", {f"{split}/cat/{n}.png": png(n) for n, split in enumerate(("train", "val"))})
    for name in ("pets", "pets.tar"):
        assert open_source(tmp_path / name).origin.notes == ()
        assert open_source(tmp_path / name, "test").origin.notes == ()
    assert "left out" not in capsys.readouterr().err
