#!/usr/bin/env bash
# timm 1.0.31 gives the training images as validation split where a folder has no validation images.
#
# create_dataset looks for a folder that is called as the split or one of its synonyms is, and takes the whole folder where
# there is none. Asked for "validation" of a folder that holds train/ alone, or classes without splits, it gives the images that
# it gives as "train", without a word: a network is then measured on what it has learnt.
# Seen: of a folder with train/ alone, and of one with classes alone, both splits hold the same files; with val/ they do not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile torch==2.14.1 torchvision==0.29.1 timm==1.0.31
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys
from pathlib import Path

import timm
from PIL import Image
from timm.data import create_dataset


def files(name: str, split: str, folders: list[str]) -> set[str]:
    root = Path(sys.argv[1]) / name
    for one in folders:
        (root / one).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(root / one / "photo.png")
    dataset = create_dataset("", str(root), split=split)
    return {dataset.reader.filename(index, absolute=True) for index in range(len(dataset))}


print("timm", timm.__version__)
for name, folders, is_same in [
    ("train alone", ["train/cat", "train/dog"], True),
    ("classes alone", ["cat", "dog"], True),
    ("train and val", ["train/cat", "train/dog", "val/cat", "val/dog"], False),
]:
    train, validation = (files(name, split, folders) for split in ("train", "validation"))
    print(f"{name}: {len(train)} training and {len(validation)} validation images, {len(train & validation)} of them the same")
    assert (train == validation) == is_same
PYTHON
