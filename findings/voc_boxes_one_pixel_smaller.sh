#!/usr/bin/env bash
# One Pascal VOC file, two converters: labelformat 0.1.17 makes each box a pixel smaller than supervision 0.31.2.
#
# VOC counts pixels from 1 and includes the last one: a box over all of a 100 x 80 image is 1, 1, 100, 80. supervision
# takes 1 from the first corner; labelformat takes the numbers as edges, so that boxes lose their first column and row, and
# a side less than they have. Neither says anything, and large boxes look alike; small ones do not: matched with each
# other, as training with the one and measuring with the other does, they miss the strict thresholds of COCO's mAP.
# Seen: an object of 10 x 10 pixels: [10, 20, 10, 10] by supervision and [11, 21, 9, 9] by labelformat (COCO's x, y, width
# and height), IoU 0.81; one of 5 x 5: IoU 0.64; the whole image: [0, 0, 100, 80] and [1, 1, 99, 79].
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile labelformat==0.1.17 supervision==0.31.2 pillow==13.0.0
"$folder/venv/bin/python" -W ignore - "$folder" <<'PYTHON'
import json
import sys
from importlib.metadata import version
from pathlib import Path

import supervision
from labelformat.formats import COCOObjectDetectionOutput, PascalVOCObjectDetectionInput
from PIL import Image

root = Path(sys.argv[1])
corners = [(1, 1, 100, 80), (11, 21, 20, 30), (41, 41, 45, 45)]  # of the first and the last pixel
for name in ("images", "annotations"):
    (root / name).mkdir()
Image.new("RGB", (100, 80)).save(root / "images" / "photo.jpg")
objects = "".join(
    "<object><name>bird</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult><bndbox>"
    f"<xmin>{x}</xmin><ymin>{y}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
    for x, y, right, bottom in corners
)
(root / "annotations" / "photo.xml").write_text(
    "<annotation><folder>images</folder><filename>photo.jpg</filename>"
    f"<size><width>100</width><height>80</height><depth>3</depth></size>{objects}</annotation>"
)


def boxes_of(file: Path) -> list[list[float]]:
    return [one["bbox"] for one in json.loads(file.read_text())["annotations"]]


data = supervision.DetectionDataset.from_pascal_voc(str(root / "images"), str(root / "annotations"))
data.as_coco(annotations_path=str(root / "supervision.json"))
labels = PascalVOCObjectDetectionInput(input_folder=root / "annotations", category_names="bird")
COCOObjectDetectionOutput(output_file=root / "labelformat.json").save(labels)
by_supervision, by_labelformat = boxes_of(root / "supervision.json"), boxes_of(root / "labelformat.json")

print("labelformat", version("labelformat"), "supervision", version("supervision"))
for (x, y, right, bottom), first, second in zip(corners, by_supervision, by_labelformat, strict=True):
    overlap = second[2] * second[3] / (first[2] * first[3])  # the second box lies in the first one
    print(f"pixels {x}..{right} x {y}..{bottom}: supervision {first} labelformat {second} IoU {overlap:.2f}")
    assert first == [x - 1, y - 1, right - x + 1, bottom - y + 1], "supervision changed"
    assert second == [x, y, right - x, bottom - y], "labelformat changed"
PYTHON
