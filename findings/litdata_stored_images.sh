#!/usr/bin/env bash
# litdata 0.2.76 stores other images than the ones it is given: photos at full size after thumbnail(), palettes lost.
#
# optimize() takes Pillow's images. Of one that came from a JPEG file it copies that file, whatever was done to the image
# in place since: thumbnail(), the usual way to shrink photos before they are stored, or exif_transpose(in_place=True).
# Of a PNG with a palette it stores the numbers of the colours without the colours, and Pillow makes black of them all.
# No error, no warning; resize(), which makes a new image, and images converted to RGB are stored as they are.
# Seen: photos of 256 x 192 px, shrunk to 64 x 48 by thumbnail(), come back as 3 x 192 x 256; a red and white PNG, black.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile torch==2.14.1 torchvision==0.29.1 numpy==2.3.5 pillow==12.0.0 litdata==0.2.76
cat > "$folder/store.py" <<'PYTHON'
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
from litdata import StreamingDataset, optimize
from PIL import Image


def shrunk_in_place(path: str) -> dict[str, Image.Image]:
    image = Image.open(path)
    image.thumbnail((64, 64))
    assert image.size == (64, 48)
    return {"image": image}


def resized(path: str) -> dict[str, Image.Image]:
    return {"image": Image.open(path).resize((64, 48))}


def opened(path: str, mode: str) -> dict[str, Image.Image]:
    image = Image.open(path)
    return {"image": image if image.mode == mode else image.convert(mode)}


def stored(read, file: Path, out: str) -> object:
    """What comes back of the image that `read` gives."""
    optimize(read, [str(file)], output_dir=str(file.with_name(out)), chunk_bytes="8MB", num_workers=1)
    return StreamingDataset(str(file.with_name(out)), shuffle=False)[0]["image"]


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    Image.fromarray(np.full((192, 256, 3), 99, np.uint8)).save(folder / "photo.jpg")
    flag = Image.fromarray(np.repeat([[0, 1]], 8, 0).astype(np.uint8)).convert("P")
    flag.putpalette([220, 30, 30, 255, 255, 255])
    flag.save(folder / "flag.png")
    shrunk = tuple(stored(shrunk_in_place, folder / "photo.jpg", "shrunk").shape)
    whole = stored(resized, folder / "photo.jpg", "resized").size
    flags = {mode: stored(partial(opened, mode=mode), folder / "flag.png", mode) for mode in ("P", "RGB")}
    colours = {mode: image.convert("RGB").getcolors() for mode, image in flags.items()}
    seen = f"after thumbnail to 64 x 48: {shrunk}; after resize to 64 x 48: {whole}; colours of the PNG: {colours}"
    Path("seen.txt").write_text(f"litdata {version('litdata')} pillow {version('pillow')}\n{seen}\n")
    assert shrunk == (3, 192, 256)
    assert whole == (64, 48)
    assert colours == {"P": [(16, (0, 0, 0))], "RGB": [(8, (255, 255, 255)), (8, (220, 30, 30))]}
PYTHON
cd "$folder"
venv/bin/python store.py "$folder" > log.txt 2>&1 || failed=$? # litdata's own messages are many
cat seen.txt
if [ "${failed:-0}" -ne 0 ]; then tail -n 20 log.txt; fi
exit "${failed:-0}"
