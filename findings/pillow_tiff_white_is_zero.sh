#!/usr/bin/env bash
# TIFF scans where 0 is white: Pillow 13.0.0 turns them round at 8 bits and leaves them negative at 16 bits.
#
# PhotometricInterpretation 0 (WhiteIsZero) is baseline TIFF: film scanners, X-ray and microscopes write it. One picture
# stored in 8 and in 16 bits comes out of Pillow as a positive and a negative, and neither the mode nor anything else
# says so (the tag does: 262). opencv-python 5.0.0 does the same; tifffile 2026.3.3 turns neither. Two depths in one
# folder, or one reader for training and another one for search, and features are those of the negative.
# Seen: a ramp from black to white, brightness of the first and last pixel (of 1): at 8 bits 0 and 1 by Pillow and OpenCV,
# 1 and 0 by tifffile; at 16 bits 1 and 0 by all three; with BlackIsZero 0 and 1 by all, at both depths.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile pillow==13.0.0 tifffile==2026.3.3 opencv-python-headless==5.0.0.93
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys
import warnings

import cv2
import numpy as np
import PIL
import tifffile
from PIL import Image

warnings.simplefilter("error")
file = f"{sys.argv[1]}/ramp.tif"
readers = {
    "pillow": lambda: np.asarray(Image.open(file)),
    "opencv": lambda: cv2.imread(file, cv2.IMREAD_UNCHANGED),
    "tifffile": lambda: tifffile.imread(file),
}
rising, falling = (0.0, 1.0), (1.0, 0.0)
expected = {
    ("minisblack", "uint8"): dict.fromkeys(readers, rising),
    ("minisblack", "uint16"): dict.fromkeys(readers, rising),
    ("miniswhite", "uint8"): {"pillow": rising, "opencv": rising, "tifffile": falling},
    ("miniswhite", "uint16"): dict.fromkeys(readers, falling),
}
print("pillow", PIL.__version__, "opencv", cv2.__version__, "tifffile", tifffile.__version__)
for (photometric, kind), right in expected.items():
    white = np.iinfo(kind).max
    ramp = np.linspace(0, white, 16).astype(kind)[None].repeat(8, axis=0)
    stored = white - ramp if photometric == "miniswhite" else ramp  # by the tag's meaning, the same picture
    tifffile.imwrite(file, stored, photometric=photometric)
    found = {name: tuple(float(read()[0, column] / white) for column in (0, -1)) for name, read in readers.items()}
    print(photometric, kind, found)
    assert found == right, f"expected {right}"
PYTHON
