"""Which images a user means by what he types."""

from __future__ import annotations

import pytest
from data_makers import make_class_tar, make_folder, make_parquet, png
from shard_makers import make_shards

from disco_zoo.data.image_list import FileListSource, data_of, name_of, open_images, reopen_images
from disco_zoo.data.webdataset.index_build import build_index
from disco_zoo.errors import BadData


def names(source):
    return [name_of(source, index) for index in range(len(source))]


def test_a_folder_is_taken_whole_with_names_below_it(tmp_path):
    for split in ("train", "test"):
        make_folder(tmp_path / "pets" / split)
    source = open_images([str(tmp_path / "pets")])
    assert len(source) == 12
    assert names(source)[0] == "test/cat/0.png"
    assert data_of([str(tmp_path / "pets")], source) == str(tmp_path / "pets")
    assert len(open_images([str(tmp_path / "pets")], "test")) == 6


def test_tar_and_parquet(tmp_path):
    assert len(open_images([str(make_class_tar(tmp_path / "pets.tar"))])) == 6
    source = open_images([str(make_parquet(tmp_path / "pets.parquet"))])
    assert names(source)[2] == "2.png in pets.parquet row 2"


def test_files_and_lists_keep_their_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    several = open_images(["2.png", "0.png"])
    assert isinstance(several, FileListSource)
    assert names(several) == [str(tmp_path / "2.png"), str(tmp_path / "0.png")]
    assert several.image(0) == open_images(["2.png"]).image(0)
    assert data_of(["2.png", "0.png"], several) is None
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "mine.txt").write_text("../1.png\n\n../2.png\n")
    listed = open_images(["lists/mine.txt"])
    assert [listed.image(i) for i in range(2)] == [open_images([f"{i}.png"]).image(0) for i in (1, 2)]
    assert reopen_images(None, None, names(listed)).image(1) == listed.image(1)


def test_what_is_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cat.png").write_bytes(png(0))
    (tmp_path / "cat.psd").write_bytes(b"8BPS")
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "list.txt").write_text("cat.png\ndog.png\n")
    for given, words in (
        (["ct.png"], "Did you mean 'cat.png'"),
        (["cat.png", "folder"], "several names must all be image files"),
        (["empty.txt"], "is empty"),
        (["list.txt"], "1 of the 2 files"),
        (["cat.psd"], "no image that can be read"),
        (["none.txt"], "cannot be read as a list"),
        (["folder"], "folder is empty"),
        (["nowhere"], "there is no data at nowhere"),
    ):
        with pytest.raises(BadData, match=words):
            open_images(given)
    with pytest.raises(BadData, match="Leave out --split test"):
        open_images([str(make_folder(tmp_path / "train"))], "test")
    with pytest.raises(BadData, match="--images DATA"):
        reopen_images(str(tmp_path / "gone"), None, [])


def test_a_changed_file_is_another_source(tmp_path):
    (tmp_path / "a.png").write_bytes(png(0))
    before = open_images([str(tmp_path / "a.png")]).fingerprint()
    (tmp_path / "a.png").write_bytes(png(0) + b"more")
    assert open_images([str(tmp_path / "a.png")]).fingerprint() != before


def test_lists_of_files_of_the_same_names_and_sizes_are_different_sources(tmp_path):
    for camera in ("cam1", "cam2"):
        (tmp_path / camera).mkdir()
        (tmp_path / camera / "0.png").write_bytes(png(0))
        (tmp_path / f"{camera}.txt").write_text(f"{camera}/0.png\n")
    one, other = (open_images([str(tmp_path / f"{camera}.txt")]).fingerprint() for camera in ("cam1", "cam2"))
    assert one != other
    assert one == open_images([str(tmp_path / "cam1" / "0.png")]).fingerprint()


def test_indexed_shards_give_their_training_images(tmp_path):
    shards = tmp_path / "shards"
    make_shards(shards, [4, 3], prefix="x_train")
    make_shards(shards, [2], prefix="x_val")
    build_index(shards, tmp_path / "index")
    build_index(shards)
    for given in ("shards", "index"):  # the folder, and an index that lies elsewhere
        source = open_images([str(tmp_path / given)])
        assert (len(source), source.labels) == (7, [0, 1, 2, 0, 1, 2, 0])
        assert names(source)[4] == "00004.png in x_train-001.tar"
        assert len(open_images([str(tmp_path / given)], "test")) == 2
        assert reopen_images(data_of([str(tmp_path / given)], source), None, []).fingerprint() == source.fingerprint()
