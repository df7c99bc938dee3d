"""What sets with boxes or masks are: the same facts as of other sources, on screen, in run.json and in reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_runs import toy_images

from disco_zoo.cli import main
from disco_zoo.tasks.dense_report import look_lines


def coco(folder: Path, *, deep: bool = False) -> Path:
    """Four training and two test images, a crowd, and beside them an image that nothing lists and two other files."""
    for split, count in (("train", 4), ("val", 2)):
        (folder / split).mkdir(parents=True)
        for number, image in enumerate(toy_images(count + 1, seed=0)):
            if deep:
                grey = np.asarray(image.convert("L")).astype(np.uint16) * 16
                image = Image.fromarray(grey)
            image.save(folder / split / f"{number}.png")
        rows = [{"id": n, "file_name": f"{n}.png", "width": 16, "height": 16} for n in range(count)]
        boxes = [
            {"id": n, "image_id": n, "category_id": 1 + n % 2, "bbox": [1, 1, 8, 8], "area": 64, "iscrowd": int(n == 3)}
            for n in range(count)
        ]
        names = [{"id": 1, "name": "hen"}, {"id": 2, "name": "cock"}]
        (folder / "annotations").mkdir(exist_ok=True)
        text = json.dumps({"images": rows, "annotations": boxes, "categories": names})
        (folder / "annotations" / f"instances_{split}.json").write_text(text)
    (folder / "train" / "._0.png").write_bytes(b"")
    (folder / "train" / "notes.docx").write_bytes(b"")
    return folder


def looked(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[dict[str, Any], str]:
    assert main(["data", "look", *map(str, arguments), "--json"]) == 0
    captured = capsys.readouterr()
    return json.loads(captured.out), captured.err.replace("\n", " ")


def test_boxes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts, said = looked(capsys, coco(tmp_path / "birds"), "--boxes")
    train, test = facts["train"], facts["test"]
    assert (train["images"], test["images"], train["classes"]) == (4, 2, 2)
    assert train["objects"] == {"boxes": 3, "boxes of crowds or difficult objects": 1}
    assert train["labels_from"] == "the categories of instances_train.json"
    assert train["left_out"] == {"images that nothing lists": 1, "hidden": 1, ".docx": 1}
    assert test["left_out"] == {"images that nothing lists": 1}
    assert train["modes"] == {"RGB": 4}
    assert "4 training images, 3 boxes, 1 boxes of crowds" in said
    assert "2 classes by the categories of instances_train.json, modes RGB 4, 3 files left out" in said
    assert "2 test images" in said
    assert look_lines({"look": facts}, "train")[0].endswith(
        "3 files left out (1 .docx, 1 hidden, 1 images that nothing lists)"
    )
    assert look_lines({}, "train") == []


def test_depth_is_that_of_both_splits_and_a_json_alone_will_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = coco(tmp_path / "scans", deep=True)
    facts, said = looked(capsys, folder / "annotations" / "instances_train.json", "--sheet", tmp_path / "sheet.png")
    assert facts["train"]["white"] == {"I;16": 4095}
    assert "which 4095 is white" in said
    assert (tmp_path / "sheet.png").is_file()


def test_masks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split, count in (("Training", 3), ("val", 2)):
        for part in ("images", "masks"):
            (tmp_path / split / part).mkdir(parents=True)
        for number, image in enumerate(toy_images(count, seed=0)):
            image.save(tmp_path / split / "images" / f"{number}.png")
            mask = np.zeros((16, 16), np.uint8)
            mask[:4] = 1 + number % 2
            Image.fromarray(mask).save(tmp_path / split / "masks" / f"{number}.png")
    facts, said = looked(capsys, tmp_path, "--masks")
    assert (facts["train"]["images"], facts["test"]["images"], facts["train"]["classes"]) == (3, 2, 3)
    assert facts["train"]["objects"] == {"masks": 3}
    assert facts["train"]["labels_from"] == "the numbers in the masks"
    assert "3 training images, 3 masks, 3 classes by the numbers in the masks, modes RGB 3" in said


def test_one_kind_of_annotation_at_a_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "look", str(tmp_path), "--boxes", "--masks"]) == 2
    assert "one of them" in capsys.readouterr().err


def test_test_images_that_are_trained_on_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = coco(tmp_path / "birds") / "annotations" / "instances_train.json"
    _, said = looked(capsys, file, "--eval-data", file)
    assert "4 of the 4 test images are training images, too; figures say nothing of other images" in said


@pytest.mark.parametrize(
    "places",
    [
        ("train_set/images", "train_set/masks", "test_set/images", "test_set/masks"),
        ("img_dir/train", "ann_dir/train", "img_dir/val", "ann_dir/val"),
        ("Images/TrainImages", "Labels/Train", "Images/Testing", "Labels/Testing"),
    ],
)
def test_splits_of_masks_in_their_usual_spellings(
    places: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, place in enumerate(places):
        (tmp_path / place).mkdir(parents=True)
        for index, image in enumerate(toy_images(3 if number < 2 else 2, seed=0)):
            values = np.zeros((16, 16), np.uint8)
            values[:4] = 1
            made = Image.fromarray(values) if number % 2 else image
            made.save(tmp_path / place / f"{index}.png")
    facts, _ = looked(capsys, tmp_path, "--masks")
    assert (facts["train"]["images"], facts["test"]["images"], facts["train"]["classes"]) == (3, 2, 2)
