"""COCO as people store it: the usual layouts, the set's own images, crowds and areas."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from disco_zoo.errors import BadData
from disco_zoo.tasks.detection.annotations import mended
from disco_zoo.tasks.detection.coco_format import read_coco
from disco_zoo.tasks.detection.data import open_annotated_pair

SIDE = 40


def write(file: Path, images: Path, count: int, shade: int, **changes: Any) -> None:
    """An instances file of `count` images with a box each, and the images."""
    images.mkdir(parents=True, exist_ok=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.fromarray(np.full((SIDE, SIDE, 3), shade, np.uint8)).save(images / f"{number}.png")
    rows = [{"id": n, "file_name": f"{n}.png", "width": SIDE, "height": SIDE} for n in range(count)]
    boxes = [
        {"id": n, "image_id": n, "category_id": n % 2 + 1, "bbox": [2, 3, 10, 20], "area": 150, "iscrowd": 0} | changes
        for n in range(count)
    ]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    file.write_text(json.dumps({"images": rows, "annotations": boxes, "categories": categories}))


@pytest.mark.parametrize(
    ("file", "images"),
    [
        ("{}.json", "images/{}"),
        ("{}.json", "{}"),
        ("{}/labels.json", "{}/data"),
        ("{}/_annotations.coco.json", "{}"),
        ("annotations/{}.json", "images/{}"),
        ("labels/{}.json", "images/{}"),
        ("Annotations/instances_{}.json", "Images/{}"),
    ],
)
@pytest.mark.parametrize(("train", "test"), [("train", "val"), ("Train", "Test"), ("training", "validation")])
def test_usual_layouts(file: str, images: str, train: str, test: str, tmp_path: Path) -> None:
    for split, count in ((train, 4), (test, 2)):
        write(tmp_path / file.format(split), tmp_path / images.format(split), count, 90)
    pair = open_annotated_pair(str(tmp_path))
    assert [len(part) for part in pair] == [4, 2]
    for part, split in zip(pair, (train, test), strict=True):
        assert {image.path.parent for image in part.images} == {tmp_path / images.format(split)}


def test_one_file_beside_data(tmp_path: Path) -> None:
    write(tmp_path / "labels.json", tmp_path / "data", 10, 90)
    train, test = open_annotated_pair(str(tmp_path))
    assert len(train) + len(test) == 10
    assert train.images[0].path.parent == tmp_path / "data"


@pytest.mark.parametrize("place", ["images", ".", "train"])
def test_images_of_a_sibling_set_are_not_read(place: str, tmp_path: Path) -> None:
    write(tmp_path / "other.json", tmp_path / place, 3, 10)  # files of the same names
    write(tmp_path / "mine" / "train.json", tmp_path / "mine" / "images", 3, 200)
    found = read_coco(tmp_path / "mine" / "train.json")
    assert {image.path.parent for image in found.images} == {tmp_path / "mine" / "images"}
    (tmp_path / "mine" / "images" / "0.png").unlink()
    with pytest.raises(BadData, match="1 of 3 image files are unfit"):
        open_annotated_pair(str(tmp_path / "mine" / "train.json"), str(tmp_path / "mine" / "train.json"))


def test_images_outside_of_the_set_are_said(tmp_path: Path) -> None:
    write(tmp_path / "mine" / "train.json", tmp_path / "images", 3, 200)
    found = read_coco(tmp_path / "mine" / "train.json")
    assert found.notes == (f"the images are read from {tmp_path / 'images'}, outside of {tmp_path / 'mine'}",)


def test_crowds_are_counted_and_said(tmp_path: Path) -> None:
    write(tmp_path / "a.json", tmp_path / "images", 5, 90, iscrowd=1)
    assert "crowds (iscrowd), neither learnt nor measured: 5" in read_coco(tmp_path / "a.json").notes


@pytest.mark.parametrize("area", [-3, 0, None, math.nan, "150"])
def test_an_area_that_is_not_positive_is_that_of_the_box(area: Any, tmp_path: Path) -> None:
    write(tmp_path / "a.json", tmp_path / "images", 4, 90, area=area)
    found = mended(read_coco(tmp_path / "a.json"))
    expected = 150 if area == "150" else 200
    assert [instance.area for image in found.images for instance in image.instances] == [expected] * 4


def test_dark_images_of_16_bits_are_seen(tmp_path: Path) -> None:
    write(tmp_path / "a.json", tmp_path / "images", 10, 90)
    for number in range(10):
        values = np.full((SIDE, SIDE), 4095 if number else 400, np.uint16)
        Image.fromarray(values).save(tmp_path / "images" / f"{number}.png")
    train, test = open_annotated_pair(str(tmp_path))
    assert train.ranges == test.ranges
    assert train.ranges.white == {"I;16": 4095}
