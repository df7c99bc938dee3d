#!/usr/bin/env bash
# labelformat 0.1.17 turns COCO's crowds into single objects when it reads boxes: detectors learn and must find them.
#
# COCO marks a region in which objects were not told apart by iscrowd=1: training leaves it out, and what is found in it
# counts neither way. Its boxes are often the largest ones. As boxes (COCOObjectDetectionInput) the mark is dropped in
# silence: written as YOLO, VOC or COCO again, such a region is an object as any other. Read as masks
# (COCOInstanceSegmentationInput) the same file keeps it.
# Seen: an apple and a crowd over the whole image: as boxes two objects in YOLO and in COCO, none with iscrowd; by
# pycocotools 2.0.11 a detector that finds the apple alone has AP 1.0 with the file and 0.50 with labelformat's copy.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile labelformat==0.1.17 pycocotools==2.0.11 pillow==13.0.0
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import contextlib
import io
import json
import sys
from importlib.metadata import version
from pathlib import Path

from labelformat.formats import (
    COCOInstanceSegmentationInput,
    COCOInstanceSegmentationOutput,
    COCOObjectDetectionInput,
    COCOObjectDetectionOutput,
    YOLOv8ObjectDetectionOutput,
)
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

root = Path(sys.argv[1])
corners = [10, 10, 30, 10, 30, 30, 10, 30]
common = {"image_id": 1, "category_id": 0}
apple = {**common, "id": 1, "bbox": [10, 10, 20, 20], "area": 400, "iscrowd": 0, "segmentation": [corners]}
everything = {"size": [80, 100], "counts": [0, 8000]}
crowd = {**common, "id": 2, "bbox": [0, 0, 100, 80], "area": 8000, "iscrowd": 1, "segmentation": everything}
file = root / "file.json"
content = {
    "images": [{"id": 1, "file_name": "photo.jpg", "width": 100, "height": 80}],
    "categories": [{"id": 0, "name": "apple"}],
    "annotations": [apple, crowd],
}
file.write_text(json.dumps(content))


def written(read: type, write: type) -> list[dict]:
    """The annotations of the file after labelformat has read and written it."""
    write(output_file=root / "again.json").save(read(input_file=file))
    return json.loads((root / "again.json").read_text())["annotations"]


def precision(annotations: list[dict]) -> float:
    """AP of a detector that finds the apple; ids and areas, which labelformat leaves out, are filled in."""
    filled = [{"id": number, "iscrowd": 0, "area": 400, **one} for number, one in enumerate(annotations, start=1)]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {**content, "info": {}, "annotations": filled}
        truth.createIndex()
        found = truth.loadRes([{**common, "bbox": [10, 10, 20, 20], "score": 0.9}])
        measured = COCOeval(truth, found, "bbox")
        measured.evaluate()
        measured.accumulate()
        measured.summarize()
    return round(float(measured.stats[0]), 2)


boxes = written(COCOObjectDetectionInput, COCOObjectDetectionOutput)
masks = written(COCOInstanceSegmentationInput, COCOInstanceSegmentationOutput)
YOLOv8ObjectDetectionOutput(output_file=root / "data.yaml", output_split="train").save(
    COCOObjectDetectionInput(input_file=file)
)
lines = next(root.glob("labels/*.txt")).read_text().splitlines()
print("labelformat", version("labelformat"), "pycocotools", version("pycocotools"))
print("boxes:", boxes)
print("YOLO:", lines)
print("masks: iscrowd", [bool(one["iscrowd"]) for one in masks])
print("AP of the file", precision([apple, crowd]), "and of its copy", precision(boxes))
assert [one.get("iscrowd") for one in boxes] == [None, None] and len(lines) == 2, "boxes now know crowds"
assert [bool(one["iscrowd"]) for one in masks] == [False, True]
assert (precision([apple, crowd]), precision(boxes)) == (1.0, 0.5)
PYTHON
