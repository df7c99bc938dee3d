#!/usr/bin/env bash
# cleanvision 0.3.7 calls images of different colours exact duplicates where they are stored with a palette.
#
# Its exact duplicates are those whose pixels as stored have one checksum: of a PNG or GIF with a palette these are
# numbers of colours, and the palette does not count. One drawing in two colours (a shirt in red and in blue, a map
# before and after) is a pair of copies. Whoever removes what is reported loses images.
# Seen: of 4 shapes, each in red and in blue, 4 pairs of exact duplicates, as of copies; the same images stored as RGB: none.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile cleanvision==0.3.7 pillow==12.0.0 numpy==2.3.5 pandas==2.3.3 \
    imagehash==4.3.2 matplotlib==3.10.8
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import contextlib
import io
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from cleanvision import Imagelab
from PIL import Image

INKS = {"red": (220, 30, 30), "blue": (30, 30, 220)}


def duplicates(folder: Path, mode: str) -> list[list[str]]:
    """Four shapes in two inks on white, stored in a mode; what is called exact duplicates."""
    folder.mkdir()
    across, down = np.meshgrid(np.linspace(-1, 1, 96), np.linspace(-1, 1, 96))
    shapes = {
        "disc": across**2 + down**2 < 0.5,
        "ring": abs(across**2 + down**2 - 0.5) < 0.2,
        "cross": np.minimum(abs(across), abs(down)) < 0.2,
        "wedge": (across > -0.7) & (abs(down) < (across + 0.7) / 2),
    }
    for name, shape in shapes.items():
        for colour, ink in INKS.items():
            image = Image.fromarray(shape.astype(np.uint8)).convert("P")
            image.putpalette([255, 255, 255, *ink])
            image.convert(mode).save(folder / f"{name}_{colour}.png")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        lab = Imagelab(data_path=str(folder))
        lab.find_issues({"exact_duplicates": {}}, n_jobs=1)
    return sorted(sorted(Path(name).stem for name in group) for group in lab.info["exact_duplicates"]["sets"])


print("cleanvision", version("cleanvision"), "pillow", version("pillow"))
found = {mode: duplicates(Path(sys.argv[1]) / mode, mode) for mode in ("P", "RGB")}
for mode, groups in found.items():
    print(f"stored as {mode}: exact duplicates {groups}")
assert found["P"] == [[f"{name}_blue", f"{name}_red"] for name in ("cross", "disc", "ring", "wedge")]
assert found["RGB"] == []
PYTHON
