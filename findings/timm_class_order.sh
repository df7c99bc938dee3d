#!/usr/bin/env bash
# timm 1.0.31 and torchvision 0.29.1 number the classes of one folder differently: "2" before "10", or behind it.
#
# timm sorts the names of class folders as people count and without regard to case, torchvision's ImageFolder by
# character. Both take the folder and none complains: a classifier or a label list made with the one
# and measured with the other is right for the images of a few classes only. Names of ImageNet (n01440764) sort alike, so
# it does not show there; folders 1 to 102 (flowers), class_1 to class_12, or names with capitals do.
# Seen: of folders 1 to 12, one has the same number in both; of Zebra, ant and bee, none; of 01 to 12, all.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile torch==2.14.1 torchvision==0.29.1 timm==1.0.31
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys
from pathlib import Path

import timm
import torchvision
from PIL import Image
from timm.data import create_dataset
from torchvision.datasets import ImageFolder


def numbers(name: str, classes: list[str]) -> tuple[dict[str, int], dict[str, int]]:
    """The number of each class by timm and by torchvision."""
    root = Path(sys.argv[1]) / name
    for one in classes:
        (root / one).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(root / one / "photo.png")
    return create_dataset("", str(root)).reader.class_to_idx, ImageFolder(str(root)).class_to_idx


print("timm", timm.__version__, "torchvision", torchvision.__version__)
for name, classes, same in [
    ("synsets", ["n01440764", "n02102040", "n03000684"], 3),
    ("numbers", [str(number) for number in range(1, 13)], 1),
    ("padded", [f"{number:02}" for number in range(1, 13)], 12),
    ("capitals", ["Zebra", "ant", "bee"], 0),
]:
    by_timm, by_torchvision = numbers(name, classes)
    alike = sum(by_timm[one] == by_torchvision[one] for one in classes)
    print(f"{name}: {alike} of {len(classes)} classes have one number; timm {by_timm} torchvision {by_torchvision}")
    assert alike == same, f"expected {same}"
PYTHON
