# /// script
# requires-python = ">=3.10"
# dependencies = ["pyarrow==26.0.1", "pillow==13.0.0", "numpy>=1.26"]
# ///
"""Build the embedded Fashion-MNIST sample from the four original files.

`apt install dataset-fashion-mnist` puts them in the default folder. Then `uv run tools/build_sample.py`
(or python, where the pinned versions are installed) writes the same bytes as the shipped file.
With other versions of pyarrow or pillow the bytes may differ; the pixels and labels are compared instead.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import PIL
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

DEFAULT_SOURCE = Path("/usr/share/datasets/fashion-mnist")
DEFAULT_OUT = Path(__file__).resolve().parents[1] / "disco_zoo" / "assets" / "fashion_mnist_sample.parquet"
PINNED = {"pyarrow": "26.0.1", "pillow": "13.0.0"}
MAX_SIZE_BYTES = 6_000_000
NUM_PER_CLASS = {"train": 1000, "test": 200}
PREFIX = {"train": "train", "test": "t10k"}
CLASS_NAMES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
SOURCE_SHA256 = {
    "train-images-idx3-ubyte.gz": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels-idx1-ubyte.gz": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}
# The file made with the PINNED versions, and its pixels and labels whatever made it.
FILE_SHA256 = "4411055e4abe8cd2eab90cac63e6a141b9cd887b42e477b99a78ea7f41251292"
CONTENT_SHA256 = "276a31823ee1ba3d5ccaa6ae83df97cffc5e272e57aafe3c310800d89f1c8358"


def read_source(folder: Path, name: str) -> bytes:
    """Return the unpacked bytes of one original file after checking its sha256."""
    path = folder / name
    if not path.is_file():
        sys.exit(f"{path} is missing. Type: apt install dataset-fashion-mnist, or pass --source DIR.")
    packed = path.read_bytes()
    if hashlib.sha256(packed).hexdigest() != SOURCE_SHA256[name]:
        sys.exit(f"{path} is not the original file: its sha256 differs. Get it again.")
    return gzip.decompress(packed)


def select(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Take the first rows of each class in file order, interleaved: class 0, 1, ... 9, 0, 1, ...

    Returns:
        Positions in the original file (n,), images uint8 (n, 28, 28) and labels uint8 (n,).
    """
    # The idx format: a header of 16 bytes before images, of 8 bytes before labels.
    images = np.frombuffer(read_source(folder, f"{PREFIX[split]}-images-idx3-ubyte.gz"), np.uint8, offset=16)
    labels = np.frombuffer(read_source(folder, f"{PREFIX[split]}-labels-idx1-ubyte.gz"), np.uint8, offset=8)
    firsts = [np.flatnonzero(labels == c)[: NUM_PER_CLASS[split]] for c in range(len(CLASS_NAMES))]
    rows = np.stack(firsts, axis=1).ravel()
    return rows, images.reshape(-1, 28, 28)[rows], labels[rows]


def encode_png(pixels: np.ndarray) -> bytes:
    """Store, not deflate: zstd over the whole column then gives 4.7 MB, over deflated PNGs 5.4 MB."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


def build_table(folder: Path) -> pa.Table:
    """Build the sample: columns image{bytes, path}, label, split, with Hugging Face feature metadata."""
    images: list[dict[str, object]] = []
    labels: list[int] = []
    splits: list[str] = []
    for split in NUM_PER_CLASS:
        for row, pixels, label in zip(*select(folder, split), strict=True):
            images.append({"bytes": encode_png(pixels), "path": f"{PREFIX[split]}-{row:05d}.png"})
            labels.append(int(label))
            splits.append(split)
    features = {
        "image": {"_type": "Image"},
        "label": {"names": CLASS_NAMES, "_type": "ClassLabel"},
        "split": {"dtype": "string", "_type": "Value"},
    }
    schema = pa.schema(
        [
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("label", pa.int64()),
            ("split", pa.string()),
        ],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    return pa.table({"image": images, "label": labels, "split": splits}, schema=schema)


def write_parquet(table: pa.Table) -> bytes:
    """Return the table as parquet: one row group and one page a column, so zstd sees every image at once."""
    buffer = io.BytesIO()
    pq.write_table(
        table,
        buffer,
        compression="zstd",
        compression_level=22,
        use_dictionary=["label", "split"],
        write_statistics=False,
        row_group_size=table.num_rows,
        data_page_size=64 * 2**20,
    )
    return buffer.getvalue()


def content_sha256(parquet: bytes) -> str:
    """Digest of (split, label, 784 pixels) row by row: independent of PNG and parquet encoders."""
    digest = hashlib.sha256()
    for row in pq.read_table(io.BytesIO(parquet)).to_pylist():
        with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
            digest.update(row["split"].encode() + bytes([row["label"]]) + image.tobytes())
    return digest.hexdigest()


def pinned_versions() -> bool:
    """Whether this interpreter has the versions that made the shipped file."""
    return {"pyarrow": pa.__version__, "pillow": PIL.__version__} == PINNED


def main() -> None:
    """Build, check and write the sample."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--source", type=Path, default=DEFAULT_SOURCE, help="folder of the original files")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="parquet file to write")
    arguments = parser.parse_args()
    parquet = write_parquet(build_table(arguments.source))
    if len(parquet) > MAX_SIZE_BYTES:
        sys.exit(f"The sample has {len(parquet)} bytes, more than {MAX_SIZE_BYTES}: lower NUM_PER_CLASS.")
    file_sha256, content = hashlib.sha256(parquet).hexdigest(), content_sha256(parquet)
    print(f"{len(parquet)} bytes\n  file    sha256 {file_sha256}\n  content sha256 {content}")
    if content != CONTENT_SHA256:
        sys.exit(f"Not written: the pixels or labels are not those of the shipped sample ({CONTENT_SHA256}).")
    arguments.out.write_bytes(parquet)
    print(f"Wrote {arguments.out}.")
    if file_sha256 == FILE_SHA256:
        print("Same bytes as the shipped sample.")
    elif pinned_versions():
        sys.exit(f"The bytes are not those of the shipped sample ({FILE_SHA256}), with the same versions.")
    else:
        print(f"Same pixels and labels; the bytes differ because pyarrow or pillow is not {PINNED}.")


if __name__ == "__main__":
    main()
