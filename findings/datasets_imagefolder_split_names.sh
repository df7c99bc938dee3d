#!/usr/bin/env bash
# datasets 5.2.0 takes a class folder with "train", "test" or "dev" in its name for a split, and drops all other classes.
#
# load_dataset("imagefolder", data_dir=...) looks for the words of splits anywhere in the paths, as long as no letter or
# digit stands next to them. Classes called so are real: train (CIFAR-100), bullet_train, crash-test. If one of them is
# there, the classes beside it are not loaded. Nothing is raised or logged; only the number of rows tells.
# Seen: of car/, streetcar/ and train/ with 4 images each, 4 rows without labels; of bus/, goblet/ and test-tube/ a lone
# split "test" of 4 rows; of airfield/, train_interior/ and train_station/, 8 rows of two classes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile datasets==5.2.0 pillow==13.0.0
HF_HOME="$folder/hub" HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys
from pathlib import Path

import datasets
from PIL import Image

datasets.disable_progress_bars()


def loaded(name: str, *classes: str) -> dict[str, tuple[int, list[str] | None]]:
    """Rows and class names of each split of a folder with four images a class."""
    root = Path(sys.argv[1]) / name
    for shade, one in enumerate(classes):
        (root / one).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (8, 8), (40 * shade, 40 * number, 0)).save(root / one / f"{number}.png")
    splits = datasets.load_dataset("imagefolder", data_dir=str(root))
    names = {split: rows.features["label"].names if "label" in rows.features else None for split, rows in splits.items()}
    return {split: (len(rows), names[split]) for split, rows in splits.items()}


print("datasets", datasets.__version__)
for classes, expected in [
    (("car", "streetcar", "tram"), {"train": (12, ["car", "streetcar", "tram"])}),  # no such word: all is there
    (("car", "streetcar", "train"), {"train": (4, None)}),
    (("bus", "goblet", "test-tube"), {"test": (4, None)}),
    (("airfield", "train_interior", "train_station"), {"train": (8, ["train_interior", "train_station"])}),
]:
    found = loaded("-".join(classes), *classes)
    print(classes, "->", found)
    assert found == expected, f"{classes}: expected {expected}"
PYTHON
