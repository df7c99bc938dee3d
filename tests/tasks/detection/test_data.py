"""Reading COCO and VOC, and what is wrong with annotations, found before any training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from shape_images import SHAPES, coco_split, make_coco, make_voc, write_instances

from disco_zoo.data.source_image import PIXELS_VARIABLE
from disco_zoo.errors import BadData
from disco_zoo.tasks.detection.annotations import AnnotatedSet, mask_of, rle_of, rle_of_pixels
from disco_zoo.tasks.detection.batches import StepKeys, TrainImages, mirrored, target_of
from disco_zoo.tasks.detection.data import open_annotated_pair

SIZE = 64


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_coco(tmp_path_factory.mktemp("coco"), 8, 5, SIZE)


@pytest.fixture
def copied(coco: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(coco, tmp_path / "copy"))


def test_coco_boxes_classes_and_images(coco: Path) -> None:
    train, test = open_annotated_pair(str(coco))
    document = json.loads((coco / "annotations" / "instances_train2017.json").read_text())
    assert train.class_names == test.class_names == SHAPES  # by category id, whatever the order in the file
    assert (len(train), len(test)) == (8, 5)
    assert sum(train.boxes_by_class().values()) == len(document["annotations"])
    first, row = train.images[0], document["annotations"][0]
    x, y, width, height = row["bbox"]
    assert first.instances[0].box == pytest.approx((x, y, x + width, y + height))
    assert first.path == coco / "train2017" / "000000.png"
    assert SHAPES[first.instances[0].label] == {c["id"]: c["name"] for c in document["categories"]}[row["category_id"]]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # as the package itself does
def test_the_limit_of_pixels_is_a_setting(coco: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", SIZE * SIZE // 4)
    with pytest.raises(BadData, match=rf"above the limit\. To read it: export {PIXELS_VARIABLE}={SIZE * SIZE}"):
        open_annotated_pair(str(coco))
    monkeypatch.setenv(PIXELS_VARIABLE, str(SIZE * SIZE))
    assert len(open_annotated_pair(str(coco))[0]) == 8


@pytest.mark.parametrize(
    ("annotations", "images"),
    [
        ("train/_annotations.coco.json", "train"),
        ("train.json", "images"),
        ("annotations/train.json", "images"),
        ("annotations/train.json", "train"),
        ("train/labels.json", "train/images"),
    ],
)
def test_layouts_of_exports(annotations: str, images: str, tmp_path: Path) -> None:
    write_instances(tmp_path / annotations, coco_split(tmp_path / images, 2, 0, SIZE))
    test = tmp_path / annotations.replace("train", "valid")
    write_instances(
        test,
        coco_split(tmp_path / images.replace("train", "valid") / "v", 2, 0, SIZE)
        if images == "images"
        else coco_split(tmp_path / images.replace("train", "valid"), 2, 9, SIZE),
    )
    if images == "images":  # both splits in one folder
        for path in (tmp_path / "images" / "v").iterdir():
            path.rename(tmp_path / "images" / path.name)
    train, _ = open_annotated_pair(str(tmp_path))
    assert all(image.path.is_file() for image in train.images)


def test_voc_counts_pixels_from_one_and_knows_difficult_objects(tmp_path: Path) -> None:
    make_voc(tmp_path / "VOCdevkit" / "VOC2007", {"trainval": 12, "test": 4}, SIZE)
    make_voc(tmp_path / "VOCdevkit" / "VOC2012", {"trainval": 3, "val": 2}, SIZE)
    train, test = open_annotated_pair(str(tmp_path))
    assert (len(train), len(test)) == (15, 4)  # both years' trainval; only 2007 has a test list
    assert train.class_names == SHAPES
    instances = [instance for image in train.images for instance in image.instances]
    assert 0 < sum(instance.ignore for instance in instances) < len(instances)
    xml = tmp_path / "VOCdevkit" / "VOC2007" / "Annotations" / "trainval_0.xml"
    text = xml.read_text()
    start = text.index("<xmin>")
    text = text[:start] + "<xmin>1</xmin><ymin>1</ymin><xmax>64</xmax><ymax>10</ymax>" + text[text.index("</bndbox>") :]
    xml.write_text(text)
    assert open_annotated_pair(str(tmp_path))[0].images[0].instances[0].box == (0, 0, 64, 10)


def test_voc_never_measures_on_what_it_trained_on(tmp_path: Path) -> None:
    make_voc(tmp_path, {"trainval": 4, "val": 2}, SIZE)
    with pytest.raises(BadData, match=r"has none of test.txt, only trainval, val. Name .* --eval-data"):
        open_annotated_pair(str(tmp_path))


def edit(folder: Path, split: str, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "annotations" / f"instances_{split}.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def outside(document: dict[str, Any]) -> None:
    for row in document["annotations"]:
        row["bbox"] = [500, 500, 10, 10]


def flat(document: dict[str, Any]) -> None:
    document["annotations"][0]["bbox"][2] = 0


def fractions(document: dict[str, Any]) -> None:
    for row in document["annotations"]:
        row["bbox"] = [value / SIZE for value in row["bbox"]]


def corners(document: dict[str, Any]) -> None:
    for row in document["annotations"]:
        x, y, _, _ = row["bbox"]
        row["bbox"] = [x, y, SIZE - 1, SIZE - 1]


def only_discs(document: dict[str, Any]) -> None:
    for row in document["annotations"]:
        row["category_id"] = 3


@pytest.mark.parametrize(
    ("split", "change", "expected"),
    [
        ("train2017", lambda d: d.update(annotations=[]), "has no boxes to learn"),
        ("train2017", lambda d: d.update(images=[], annotations=[]), "lists no images"),
        ("train2017", outside, r"boxes are empty or outside their image .*500\.0"),
        ("val2017", flat, "1 of .* boxes are empty"),
        ("train2017", only_discs, "has no box of square, triangle, which .*val2017.json asks for"),
        (
            "val2017",
            lambda d: d["categories"][0].update(name="star"),
            "annotation . .* is of 'star', which no training",
        ),
        ("train2017", lambda d: d["annotations"][0].update(category_id=4), "annotation 1 has category_id 4, which no"),
        ("train2017", lambda d: d["annotations"][0].update(image_id=4), "annotation 1 has image_id 4, which no"),
        ("train2017", lambda d: d["annotations"][0].update(bbox=[0, 0, float("nan"), 3]), "is no COCO .* bbox"),
        ("train2017", lambda d: d["annotations"][0].pop("bbox"), "annotation 1 has no 'bbox'"),
        ("train2017", lambda d: d["annotations"][0].update(bbox=[]), r"annotation 1 has bbox \[\], which should be"),
        ("train2017", lambda d: d["images"][1].update(id=1000), "two images have the same id"),
        ("train2017", lambda d: d["categories"][1].update(id=3), "two categories have the same id"),
        ("train2017", fractions, "the boxes are fractions of the image"),
        ("train2017", corners, r"boxes reach beyond their image. Does the file hold corners"),
        ("train2017", lambda d: d["images"].append({**d["images"][0], "id": 5}), "lists an image twice"),
        ("train2017", lambda d: d["images"][0].update(width=65), "64 × 64 pixels, its annotation says 65 × 64"),
        (
            "val2017",
            lambda d: d["images"][1].update(file_name="x.png"),
            "1 of 5 image files are unfit. First: .*missing",
        ),
        ("train2017", lambda d: d.clear(), "is no COCO instances file: it has no list 'categories'"),
    ],
)
def test_faults_of_coco_files(split: str, change: Any, expected: str, copied: Path) -> None:
    edit(copied, split, change)
    with pytest.raises(BadData, match=expected) as caught:
        open_annotated_pair(str(copied))
    assert "\n" not in str(caught.value)


def test_faults_of_folders(copied: Path, tmp_path: Path) -> None:
    (copied / "train2017" / "000003.png").write_text("no image")
    with pytest.raises(BadData, match=r"000003.png is no image"):
        open_annotated_pair(str(copied))
    (copied / "annotations" / "instances_train2017.json").write_text("{")
    with pytest.raises(BadData, match="is no readable JSON file"):
        open_annotated_pair(str(copied))
    with pytest.raises(BadData, match="there is no data at nowhere"):
        open_annotated_pair("nowhere")
    with pytest.raises(BadData, match=r"has no annotations. Expected: annotations/instances_train"):
        open_annotated_pair(str(copied / "val2017"))
    voc = make_voc(tmp_path / "voc", {"train": 3, "val": 1}, SIZE)
    (voc / "Annotations" / "train_1.xml").write_text("<annotation><object/></annotation>")
    with pytest.raises(BadData, match=r"train_1.xml is no VOC annotation: no <name> in <object>"):
        open_annotated_pair(str(voc))


def test_few_faulty_boxes_are_left_out_with_a_note(copied: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        rows = document["annotations"]
        rows[:] = [dict(row, id=n, bbox=[*row["bbox"]]) for n, row in enumerate(rows * 40)]
        rows[0]["bbox"][3] = 0
        rows[1]["bbox"][0] = -5.0

    edit(copied, "train2017", change)
    train, _ = open_annotated_pair(str(copied))
    assert train.notes == ("boxes without an area, left out: 1", "boxes cut at the edge of their image: 1")
    assert min(i.box[0] for image in train.images for i in image.instances) == 0


def test_fingerprint_sees_boxes_and_not_places(coco: Path, copied: Path) -> None:
    train, test = open_annotated_pair(str(coco))
    assert open_annotated_pair(str(copied))[0].fingerprint() == train.fingerprint() != test.fingerprint()
    edit(copied, "train2017", lambda d: d["annotations"][0]["bbox"].__setitem__(2, 3.5))
    assert open_annotated_pair(str(copied))[0].fingerprint() != train.fingerprint()


def boxes_of(masks: torch.Tensor) -> torch.Tensor:
    return torch.stack(
        [
            torch.stack(
                [
                    m.any(0).nonzero().min(),
                    m.any(1).nonzero().min(),
                    m.any(0).nonzero().max() + 1,
                    m.any(1).nonzero().max() + 1,
                ]
            )
            for m in masks
        ]
    )


def test_masks_lie_in_their_boxes_also_mirrored(coco: Path) -> None:
    train, _ = open_annotated_pair(str(coco))
    image = next(image for image in train.images if len(image.instances) > 1)
    target = target_of(image, masks=True)
    assert (boxes_of(target["masks"]) - target["boxes"]).abs().max() <= 1.5
    pixels = torch.arange(3 * SIZE * SIZE).reshape(3, SIZE, SIZE)
    flipped_pixels, flipped = mirrored(pixels, target)
    assert (boxes_of(flipped["masks"]) - flipped["boxes"]).abs().max() <= 1.5
    assert not torch.equal(flipped["boxes"], target["boxes"])
    again_pixels, again = mirrored(flipped_pixels, flipped)
    assert torch.equal(again_pixels, pixels)
    torch.testing.assert_close(again["boxes"], target["boxes"])


def test_a_square_outline_is_its_square_and_rle_says_the_same() -> None:
    mask = mask_of([[2, 3, 8, 3, 8, 9, 2, 9]], 12, 10)
    expected = torch.zeros(12, 10, dtype=torch.uint8)
    expected[3:9, 2:8] = 1
    assert torch.equal(mask, expected)
    rle = rle_of_pixels(mask.bool())
    assert torch.equal(mask_of(rle, 12, 10), expected)
    column_runs = [2 * 12 + 3, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 3 + 2 * 12]  # COCO counts down the columns
    assert torch.equal(mask_of({"size": [12, 10], "counts": column_runs}, 12, 10), expected)
    assert rle_of(rle, 12, 10) == rle


def test_crowds_teach_nothing(coco: Path) -> None:
    train, _ = open_annotated_pair(str(coco))
    image = train.images[0]
    crowd = type(image)(image.path, SIZE, SIZE, tuple(replace(i, ignore=True, learn=False) for i in image.instances))
    assert target_of(crowd, masks=False)["boxes"].shape == (0, 4)
    assert len(TrainImages(AnnotatedSet("x", SHAPES, (image, crowd)), 0, masks=False)) == 1


def test_order_of_steps_is_one_stream_whatever_the_first_step() -> None:
    whole = list(StepKeys(7, 3, seed=1, first_step=0, last_step=20))
    assert list(StepKeys(7, 3, seed=1, first_step=8, last_step=20)) == whole[8:]
    keys = [key for step in whole for key in step]
    for epoch in range(8):
        assert sorted(number for e, number in keys if e == epoch) == list(range(7))
    assert keys[:7] != [(0, number) for _, number in keys[7:14]]
    assert list(StepKeys(7, 3, seed=2, first_step=0, last_step=20)) != whole


def test_an_image_damaged_inside_is_told_by_its_name(coco: Path, tmp_path: Path) -> None:
    train, _ = open_annotated_pair(str(coco))
    cut = tmp_path / "cut.png"
    cut.write_bytes(train.images[0].path.read_bytes()[:-300])
    with Image.open(cut) as header:
        assert header.size == (SIZE, SIZE)
    image = type(train.images[0])(cut, SIZE, SIZE, train.images[0].instances)
    images = TrainImages(AnnotatedSet("x", SHAPES, (image,)), 0, masks=False)
    pixels, _, index, fault = images[(0, 0)]
    assert pixels is None
    assert index == 0
    assert "cut.png) is unreadable" in fault
