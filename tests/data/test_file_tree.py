"""The files of a folder or a tar: all of them, once each, in an order that no disk, archive or process decides."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_makers import make_tar, png
from timm.utils.misc import natural_key

from disco_zoo.data.file_tree import images_of_folder, images_of_tar, natural_order
from disco_zoo.data.open_source import open_source
from disco_zoo.data.webdataset.index_build import build_index

TIED = [*"aAbBcCdDeEfF", "1", "01", "001", "2", "02", "10"]  # of which timm's order tells six apart by letter
ORDERED = ["001", "01", "1", "02", "2", "10", *"AaBbCcDdEeFf"]


def test_the_order_is_timms_where_timms_tells_names_apart() -> None:
    names = ["b10/2.png", "b9/10.png", "B9/9.png", "a.b/1", "", "7", "x1y22z", "ä3", "٣"]
    assert sorted(names, key=natural_order) == sorted(names, key=natural_key)
    assert sorted(TIED, key=natural_order) == sorted(TIED[::-1], key=natural_order) == ORDERED


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
