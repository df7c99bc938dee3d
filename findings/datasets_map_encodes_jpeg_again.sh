#!/usr/bin/env bash
# datasets 5.2.0 compresses JPEG images again, at quality 75, when a function given to map() so much as looks at one.
#
# A column of type Image stays the files it was given, until map() calls a function that reads it: then the decoded image
# is written back as a new JPEG of Pillow's default quality, even if the function returns another column alone. filter()
# and functions that do not touch the image keep the files. A set whose sizes or hashes were looked up in three passes has
# lost three generations; teachers, caches and duplicates' hashes see other pixels than before, and nothing says so.
# Seen: a function that returns the width: 6 of 6 files changed, mean error 18 of 255 (colored squares, quality 95, 4:4:4),
# then 24 and 27 with further passes; a function of the other column, and one that looks in filter(): the same files.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile datasets==5.2.0 pillow==13.0.0
HF_HOME="$folder/hub" HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PYTHON'
import io
import warnings

import datasets
import numpy as np
from PIL import Image

warnings.simplefilter("error")
datasets.disable_progress_bars()
generator = np.random.default_rng(0)


def photo() -> bytes:
    """A JPEG of colored squares, of high quality."""
    squares = np.kron(generator.integers(0, 256, (16, 16, 3), dtype=np.uint8), np.ones((4, 4, 1), np.uint8))
    file = io.BytesIO()
    Image.fromarray(squares).save(file, "JPEG", quality=95, subsampling=0)
    return file.getvalue()


def files_of(rows: datasets.Dataset) -> list[bytes]:
    return [row["image"]["bytes"] for row in rows.cast_column("image", datasets.Image(decode=False))]


def error_of(files: list[bytes]) -> float:
    """Mean absolute difference to the pixels at the start."""
    pixels = [[np.asarray(Image.open(io.BytesIO(file)), dtype=int) for file in some] for some in (files, originals)]
    return float(np.abs(np.subtract(*pixels)).mean())


originals = [photo() for _ in range(6)]
features = datasets.Features({"image": datasets.Image(), "number": datasets.Value("int64")})
columns = {"image": [{"bytes": file, "path": None} for file in originals], "number": list(range(6))}
rows = datasets.Dataset.from_dict(columns, features=features)

untouched = rows.map(lambda row: {"number": row["number"] + 1})
filtered = rows.filter(lambda row: row["image"].width > 0)
assert files_of(untouched) == files_of(filtered) == originals, "these no longer keep the files"

errors = []
seen = rows
for generation in range(1, 4):
    seen = seen.map(lambda row, generation=generation: {"number": row["image"].width + generation})
    changed = sum(new != old for new, old in zip(files_of(seen), originals, strict=True))
    errors.append(error_of(files_of(seen)))
    print(f"datasets {datasets.__version__}: pass {generation}: {changed} of 6 files changed, error {errors[-1]:.1f}")
assert errors[0] > 5 and errors[0] < errors[1] < errors[2], "map() no longer encodes images again"
PYTHON
