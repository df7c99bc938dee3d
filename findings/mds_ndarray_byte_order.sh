#!/usr/bin/env bash
# mosaicml-streaming 0.13.0 gives big-endian arrays back with their bytes swapped: 16-bit TIFF scans become noise.
#
# The MDS encoding "ndarray" stores the name of the type, which does not hold the byte order, and the bytes as they lie.
# NumPy's arrays of Pillow's images keep the order of the file, and ImageJ and many microscopes write big-endian TIFF.
# Shape and type come back right, the values do not. (Where the type is part of the encoding, "ndarray:uint16", such an
# array is refused, with the words "expected uint16, got uint16".)
# Seen: a scan with values 0, 1, 256, 1000 and 40000 read by Pillow 12.0.0, then written and read through MDSWriter and
# StreamingDataset: 0, 256, 1, 59395 and 16540. The same scan in a little-endian file: as it was.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
# Its clients of clouds (some 60 packages) are not used here.
"$folder/venv/bin/pip" install --quiet --no-compile torch==2.14.1 torchvision==0.29.1 transformers==4.57.3 numpy==2.1.3 \
    pillow==12.0.0 tifffile==2026.3.3 Brotli==1.2.0 catalogue==2.0.10 python-snappy==0.7.3 zstd==1.5.7.2 xxhash==3.6.0
"$folder/venv/bin/pip" install --quiet --no-compile --no-deps mosaicml-streaming==0.13.0
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys
from importlib.metadata import version

import numpy as np
import PIL
import tifffile
from PIL import Image
from streaming import MDSWriter, StreamingDataset

values = np.array([[0, 1, 256, 1000, 40000]], dtype=np.uint16)
print("mosaicml-streaming", version("mosaicml-streaming"), "pillow", PIL.__version__, "numpy", np.__version__)
for order, expected in {"<": [0, 1, 256, 1000, 40000], ">": [0, 256, 1, 59395, 16540]}.items():
    name = f"{sys.argv[1]}/{'big' if order == '>' else 'little'}"
    tifffile.imwrite(f"{name}.tif", values, byteorder=order)
    scan = np.asarray(Image.open(f"{name}.tif"))
    assert np.array_equal(scan, values), "Pillow reads other values"
    with MDSWriter(out=name, columns={"scan": "ndarray"}) as writer:
        writer.write({"scan": scan})
    back = next(iter(StreamingDataset(local=name, shuffle=False, batch_size=1)))["scan"]
    print(f"scan of type {scan.dtype.str}: back with type {back.dtype.str}: {back.ravel().tolist()}")
    assert back.ravel().tolist() == expected, f"expected {expected}"
PYTHON
