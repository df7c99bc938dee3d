"""What labelling tools write instead of COCO's and VOC's own files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from shape_images import SHAPES, coco_split, make_coco, make_voc, write_instances

from disco_zoo.errors import BadData
from disco_zoo.tasks.detection.annotations import has_outline, mask_of, rle_of_pixels
from disco_zoo.tasks.detection.batches import read_image, target_of
from disco_zoo.tasks.detection.data import held_out, open_annotated_pair
from disco_zoo.tasks.detection.settings import detection_settings, size_notes

SIZE = 64
Document = dict[str, Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_coco(tmp_path_factory.mktemp("coco"), 10, 6, SIZE)


@pytest.fixture
def coco(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "my photos ü"))


def edit(folder: Path, change: Callable[[Document], Any], splits: tuple[str, ...] = ("train2017", "val2017")) -> None:
    for split in splits:
        path = folder / "annotations" / f"instances_{split}.json"
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document))


def texts(document: Document) -> None:
    """Ids as texts in the images, as numbers in the annotations; category ids that are names."""
    for row in document["images"]:
        row["id"] = str(row["id"])
    for row in document["categories"]:
        row["id"] = f"class-{row['id']}"
    for row in document["annotations"]:
        row["category_id"] = f"class-{row['category_id']}"
    document["categories"].reverse()


def sizeless(document: Document) -> None:
    for number, row in enumerate(document["images"]):
        row["width"], row["height"] = (None, 0) if number % 2 else (0, 0)
        if number % 3 == 0:
            del row["width"]


def extra(document: Document) -> None:
    document |= {"info": {"year": 2024}, "licenses": [{"id": 0}], "type": "instances"}
    for row in document["images"]:
        row |= {"license": 0, "flickr_url": "", "date_captured": "", "coco_url": ""}
    for row in document["annotations"]:
        row |= {"attributes": {"occluded": False}, "keypoints": [], "score": 1}
        del row["iscrowd"], row["area"]


def super_category(document: Document) -> None:
    """Roboflow puts a category 0 in front that no annotation uses, at times of the same name as another."""
    document["categories"].insert(0, {"id": 0, "name": " disc", "supercategory": "none"})


def boxless_image(document: Document) -> None:
    image = document["images"][0]["id"]
    document["annotations"] = [row for row in document["annotations"] if row["image_id"] != image]


@pytest.mark.parametrize("change", [texts, sizeless, extra, super_category, lambda d: None])
def test_another_spelling_is_the_same_set(change: Callable[[Document], Any], made: Path, coco: Path) -> None:
    edit(coco, change)
    for own, other in zip(open_annotated_pair(str(coco)), open_annotated_pair(str(made)), strict=True):
        assert own.class_names == SHAPES
        assert [len(i.instances) for i in own.images] == [len(i.instances) for i in other.images]
        for image, same in zip(own.images, other.images, strict=True):
            assert (image.width, image.height) == (SIZE, SIZE)
            assert [i.label for i in image.instances] == [i.label for i in same.instances]
            for one, two in zip(image.instances, same.instances, strict=True):
                assert (*one.box, one.area) == pytest.approx((*two.box, two.area))


def test_test_classes_are_those_of_training_by_name(coco: Path) -> None:
    """Other ids, another order, one class that only the test file lists and none uses, one that it does not list."""

    def renumber(document: Document) -> None:
        ids = {row["id"]: 50 - row["id"] // 3 for row in document["categories"]}
        for row in (*document["categories"], *document["annotations"]):
            key = "id" if "name" in row else "category_id"
            row[key] = ids[row[key]]
        document["categories"] = [row for row in document["categories"] if row["name"] != "triangle"]
        document["annotations"] = [row for row in document["annotations"] if row["category_id"] != ids[90]]
        document["categories"].append({"id": 99, "name": "star"})

    before = open_annotated_pair(str(coco))[1]
    edit(coco, renumber, ("val2017",))
    after = open_annotated_pair(str(coco))[1]
    assert after.class_names == SHAPES
    kept = [[i for i in image.instances if SHAPES[i.label] != "triangle"] for image in before.images]
    assert [[(i.box, i.label) for i in image.instances] for image in after.images] == [
        [(i.box, i.label) for i in rows] for rows in kept
    ]
    assert any("has none: triangle" in note for note in after.notes)


def test_images_without_boxes_are_left_out_of_training_and_count_in_measuring(coco: Path) -> None:
    edit(coco, boxless_image)
    train, test = open_annotated_pair(str(coco))
    assert "training images without a box, left out: 1" in train.notes
    assert len(test) == 6
    assert test.images[0].instances == ()


@pytest.mark.parametrize(
    "spelling",
    [
        lambda name: f"day 1/{name}",
        lambda name: f"day 1\\{name}",
        lambda name: f"C:\\Users\\me\\{name}",
        lambda name: f"../../data/upload/{name}",
    ],
)
def test_file_names_with_folders(spelling: Callable[[str], str], coco: Path) -> None:
    def change(document: Document) -> None:
        for row in document["images"]:
            row["file_name"] = spelling(row["file_name"])

    edit(coco, change)
    if "day" in spelling("x"):
        for split in ("train2017", "val2017"):
            inside = coco / split / "day 1"
            inside.mkdir()
            for path in (coco / split).glob("*.png"):
                path.rename(inside / path.name)
    train, test = open_annotated_pair(str(coco))
    assert all(image.path.is_file() for image in (*train.images, *test.images))


def test_outlines_as_rle_flat_or_broken(coco: Path) -> None:
    train, _ = open_annotated_pair(str(coco))
    polygon = train.images[0].instances[0].outline
    mask = mask_of(polygon, SIZE, SIZE)
    rle = rle_of_pixels(mask.bool())

    def outline_of(value: Any) -> Any:
        edit(coco, lambda d: d["annotations"][0].update(segmentation=value), ("train2017",))
        return open_annotated_pair(str(coco))[0].images[0].instances[0].outline

    for same in (polygon, polygon[0], [*polygon, [1, 1, 2, 2]], rle):
        outline = outline_of(same)
        assert has_outline(outline, SIZE, SIZE)
        assert torch.equal(mask_of(outline, SIZE, SIZE), mask)
    runs = {"size": [SIZE, SIZE], "counts": [SIZE * SIZE]}
    assert has_outline(outline_of(runs), SIZE, SIZE)
    for broken in ([], [[]], [[1, 1, 2, 2]], [[1, 1, 2, 2, 3]], {}, {"counts": "", "size": [SIZE, SIZE]}, None, ""):
        assert outline_of(broken) is None
    for unfit in ({**runs, "size": [SIZE, SIZE + 1]}, {**runs, "counts": [5]}):
        assert not has_outline(outline_of(unfit), SIZE, SIZE)
    with pytest.raises(BadData, match="is no COCO instances file"):
        outline_of([["a", "b", "c", "d", "e", "f"]])


def test_a_photo_is_turned_as_it_was_annotated(coco: Path) -> None:
    """A phone's photo: stored 80 × 60 with EXIF "turn right"; the upper left corner of what is seen is marked."""
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.new("RGB", (80, 60), "black")
    stored.paste("white", (0, 50, 10, 60))  # lower left; turned clockwise it is the upper left
    stored.save(coco / "train2017" / "000000.png", exif=exif)

    def first(width: int, height: int) -> Any:
        edit(coco, lambda d: d["images"][0].update(width=width, height=height), ("train2017",))
        return open_annotated_pair(str(coco))[0].images[0]

    for size, seen in (((60, 80), (0, 0)), ((0, 0), (0, 0)), ((80, 60), (50, 0))):
        image = first(*size)
        pixels = read_image(image, 0)
        assert pixels.shape[1:] == (image.height, image.width)
        assert pixels[0].nonzero()[0].tolist() == list(seen)
    with pytest.raises(BadData, match="has 60 × 80 pixels, its annotation says 61 × 80"):
        first(61, 80)


def test_one_export_without_a_split_holds_out_a_fifth(tmp_path: Path) -> None:
    document = coco_split(tmp_path / "images", 20, 0, SIZE)
    write_instances(tmp_path / "result.json", document)
    for data in (tmp_path, tmp_path / "result.json"):
        train, test = open_annotated_pair(str(data))
        assert (len(train), len(test)) == (16, 4)
        assert not {image.path for image in train.images} & {image.path for image in test.images}
        assert set(train.lessons_by_class()) == {0, 1, 2}
        assert test.notes[0].startswith("no test split: 4 of 20 images")
    assert open_annotated_pair(str(data))[1].fingerprint() == test.fingerprint()
    write_instances(tmp_path / "more.json", document)
    with pytest.raises(BadData, match=r"there are 2 annotation files .*more.json, .*result.json.*--eval-data"):
        open_annotated_pair(str(tmp_path))


def test_the_last_image_of_a_class_is_never_held_out(tmp_path: Path) -> None:
    write_instances(tmp_path / "train.json", coco_split(tmp_path / "images", 30, 0, SIZE))
    train, _ = open_annotated_pair(str(tmp_path))
    one_each = [next(i for i in train.images if {x.label for x in i.instances} == {label}) for label in range(3)]
    few = type(train)("few", SHAPES, (*one_each, one_each[1]))
    kept, test = held_out(few)
    assert set(kept.lessons_by_class()) == {0, 1, 2}
    assert len(test) == 1
    with pytest.raises(BadData, match="too few images to hold some out"):
        held_out(type(train)("one", SHAPES, tuple(one_each)))


@pytest.mark.parametrize(
    "move",
    [
        {},
        {"JPEGImages": "images"},
        {"JPEGImages": "Annotations"},
        {"JPEGImages": ".", "Annotations": "."},
    ],
)
def test_voc_annotations_without_lists_and_sizes(move: dict[str, str], tmp_path: Path) -> None:
    folder = make_voc(tmp_path / "voc", {"all": 20}, SIZE)
    shutil.rmtree(folder / "ImageSets")
    for path in (folder / "Annotations").glob("*.xml"):
        path.write_text(path.read_text().replace("<size><width>64</width>", "<size><width>0</width>"))
    for old, new in move.items():
        (folder / new).mkdir(exist_ok=True)
        for path in (folder / old).iterdir():
            path.rename(folder / new / path.name)
        (folder / old).rmdir()
    train, test = open_annotated_pair(str(folder))
    assert (len(train), len(test), train.class_names) == (16, 4, SHAPES)
    assert {(image.width, image.height) for image in train.images} == {(SIZE, SIZE)}


def test_difficult_objects_teach_and_crowds_do_not(tmp_path: Path, coco: Path) -> None:
    """As in detectron2: VOC's difficult objects are learnt, though they do not count in measuring."""
    train, _ = open_annotated_pair(str(make_voc(tmp_path / "voc", {"train": 12, "test": 4}, SIZE)))
    image = next(image for image in train.images if any(i.ignore for i in image.instances))
    assert len(target_of(image, masks=False)["boxes"]) == len(image.instances)
    edit(coco, lambda d: d["annotations"][0].update(iscrowd=1))
    crowd = open_annotated_pair(str(coco))[0].images[0]
    assert len(target_of(crowd, masks=False)["boxes"]) == len(crowd.instances) - 1


def test_boxes_out_of_the_anchors_reach_are_told(made: Path) -> None:
    train, _ = open_annotated_pair(str(made))
    assert size_notes(train, detection_settings("fast")) == []
    (small,) = size_notes(train, detection_settings("fast", None, ["anchor_sizes=[256, 256, 256, 256, 512]"]))
    assert "boxes are under 128 pixels once images are resized to 320" in small
    (large,) = size_notes(train, detection_settings("fast", None, ["anchor_sizes=[4, 4, 8, 8, 16]"]))
    assert "boxes are over 32 pixels" in large
