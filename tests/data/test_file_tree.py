"""The files of a folder or a tar: all of them, once each, in an order that no disk, archive or process decides."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data_makers import make_folder, make_parquet, make_tar, png
from timm.utils.misc import natural_key

from disco_zoo.data.file_tree import files_below, images_of_folder, images_of_tar, natural_order
from disco_zoo.data.image_list import open_images
from disco_zoo.data.open_source import open_source
from disco_zoo.data.webdataset.index_build import build_index
from disco_zoo.errors import BadData, CannotRead

TIED = [*"aAbBcCdDeEfF", "1", "01", "001", "2", "02", "10"]  # of which timm's order tells six apart by letter
ORDERED = ["001", "01", "1", "02", "2", "10", *"AaBbCcDdEeFf"]


def test_the_order_is_timms_where_timms_tells_names_apart() -> None:
    names = ["b10/2.png", "b9/10.png", "B9/9.png", "a.b/1", "", "7", "x1y22z", "ä3", "٣"]
    assert sorted(names, key=natural_order) == sorted(names, key=natural_key)
    assert sorted(TIED, key=natural_order) == sorted(sorted(TIED), key=natural_order) == ORDERED


@pytest.mark.parametrize("form", ["folder", "tar", "shards"])
def test_classes_that_timms_order_ties_have_the_same_numbers_in_every_process(form: str, tmp_path: Path) -> None:
    members = {f"{name}/0.png": png(0) for name in TIED}
    path = tmp_path / "pets"
    if form == "folder":
        for name, content in members.items():
            (path / name).parent.mkdir(parents=True)
            (path / name).write_bytes(content)
    elif form == "tar":
        path = make_tar(tmp_path / "pets.tar", members)
    else:
        path.mkdir()
        make_tar(path / "x-0.tar", members)
        build_index(path)
    assert open_source(path).class_names == ORDERED


def test_images_that_timms_order_ties_come_in_one_order(tmp_path: Path) -> None:
    for name in TIED:
        (tmp_path / f"{name}.png").write_bytes(png(0))
    ordered = [f"{name}.png" for name in ORDERED]
    assert images_of_folder(tmp_path)[0] == ordered
    for number, names in enumerate((TIED, TIED[::-1])):
        tar = make_tar(tmp_path / f"{number}.tar", {f"{name}.png": png(0) for name in names})
        assert [image.name for image in images_of_tar(tar)[0]] == ordered


# --- folders that may not be read


@pytest.fixture
def close(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, int], None]:
    """Makes a folder fail to be listed with an error of this number; the tests may run as root, who may read all."""

    def closed(folder: Path, number: int = 13) -> None:
        scandir = os.scandir

        def failing(path: Any) -> Any:
            if Path(path) == folder:
                raise OSError(number, os.strerror(number), str(path))
            return scandir(path)

        monkeypatch.setattr(os, "scandir", failing)

    return closed


@pytest.mark.parametrize("inside", ["dog", "dog/hard", "train/dog"])
def test_a_class_that_may_not_be_read_is_not_left_out(inside: str, tmp_path: Path, close: Any) -> None:
    make_folder((tmp_path / inside).parent)
    (tmp_path / inside).mkdir(exist_ok=True)
    close(tmp_path / inside)
    for opened in (open_source, lambda folder: open_images([str(folder)])):
        with pytest.raises(BadData, match=rf"{inside} cannot be listed: Permission denied\. Make it readable, or"):
            opened(tmp_path)


def test_a_disk_that_fails_is_not_the_users_mistake(tmp_path: Path, close: Any) -> None:
    make_folder(tmp_path)
    close(tmp_path / "dog", 5)
    with pytest.raises(CannotRead, match="Input/output error"):
        open_source(tmp_path)


def test_what_is_no_data_may_be_closed(tmp_path: Path, close: Any, capsys: pytest.CaptureFixture[str]) -> None:
    make_folder(tmp_path / "pets")
    (tmp_path / "pets" / "lost+found").mkdir()
    close(tmp_path / "pets" / "lost+found")
    assert len(open_source(tmp_path / "pets")) == 6
    make_folder(tmp_path / "set" / "train")
    (tmp_path / "set" / "private").mkdir()
    close(tmp_path / "set" / "private")
    assert len(open_source(tmp_path / "set")) == 6
    assert "images in private/ are left out" in capsys.readouterr().err


def test_shards_that_may_not_be_seen_are_not_left_out(tmp_path: Path, close: Any) -> None:
    make_tar(tmp_path / "x-0.tar", {"0.png": png(0)})
    (tmp_path / "more").mkdir()
    (tmp_path / "x-1.tar").symlink_to(tmp_path / "gone.tar")
    with pytest.raises(BadData, match=r"shard x-1\.tar of .* is a link that leads nowhere"):
        build_index(tmp_path)
    (tmp_path / "x-1.tar").unlink()
    make_parquet(tmp_path / "parts" / "a" / "0.parquet")
    (tmp_path / "parts" / "b").mkdir()
    close(tmp_path / "more")
    with pytest.raises(BadData, match="more cannot be listed: Permission denied"):
        build_index(tmp_path)
    close(tmp_path / "parts" / "b")
    with pytest.raises(BadData, match="parts/b cannot be listed: Permission denied"):
        open_source(tmp_path / "parts")


def test_test_images_beside_a_folder_are_not_found_where_nobody_may_look(tmp_path: Path, close: Any) -> None:
    make_folder(tmp_path / "train")
    close(tmp_path)
    with pytest.raises(BadData, match="has no test images"):
        open_source(tmp_path / "train", "test")


# --- links


def test_a_link_that_leads_nowhere_is_an_unreadable_image(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pets")
    before = open_source(folder).fingerprint()
    (folder / "cat" / "6.png").symlink_to(tmp_path / "gone.png")
    for data in (str(folder), f"torch/image_folder@{folder}"):
        source = open_source(data)
        assert (len(source), source.survey.unreadable) == (7, 1 if data == str(folder) else source.survey.unreadable)
        assert source.fingerprint() != before


def test_links_to_folders_are_followed_but_not_in_a_circle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a/cat", "b/dog"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "0.png").write_bytes(png(0))
    (tmp_path / "a" / "cat" / "up").symlink_to("..")
    (tmp_path / "a" / "itself").symlink_to("itself")
    (tmp_path / "a" / "other").symlink_to(tmp_path / "b")
    (tmp_path / "a" / "again").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "dog" / "back").symlink_to(tmp_path / "a")
    assert [*files_below(tmp_path / "a")] == ["again/dog/0.png", "cat/0.png", "itself", "other/dog/0.png"]
    said = capsys.readouterr().err
    for link, target in (("cat/up", "a"), ("other/dog/back", "a"), ("again/dog/back", "a")):
        assert f"a: {link} is a link to {tmp_path / target}, which holds it, and is not followed\n" in said


def tar_with_links(path: Path) -> Path:
    """cat/0.png, a hard link to it in dog/, a symbolic link, a hard link to nothing, and a link that is no image."""
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("cat/0.png")
        info.size = len(png(0))
        archive.addfile(info, io.BytesIO(png(0)))
        for name, target, kind in (
            ("dog/1.png", "cat/0.png", tarfile.LNKTYPE),
            ("dog/2.png", "../cat/0.png", tarfile.SYMTYPE),
            ("dog/3.png", "gone.png", tarfile.LNKTYPE),
            ("dog/README", "../README", tarfile.SYMTYPE),
        ):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, target
            archive.addfile(link)
    return path


def test_hard_links_in_tars_are_files_and_other_links_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tar_with_links(tmp_path / "x-0.tar")
    inner = make_tar(tmp_path / "outer.tar", {"pets.tar": (tmp_path / "x-0.tar").read_bytes()})
    for path in (tmp_path / "x-0.tar", inner):
        source = open_source(path)
        assert (source.labels, source.class_names, source.origin.left_out) == ([0, 1], ["cat", "dog"], {"links": 2})
        assert [source.encoded(index) for index in range(2)] == [png(0), png(0)]
        assert "files left out that are links to elsewhere: 2" in capsys.readouterr().err
    inner.unlink()
    build_index(tmp_path)
    shards = open_source(tmp_path)
    assert (shards.labels, shards.class_names, shards.origin.left_out) == ([0, 1], ["cat", "dog"], {"links": 2})
    assert [shards.encoded(index) for index in range(2)] == [png(0), png(0)]
