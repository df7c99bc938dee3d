"""Small image sets for the tests, in each of the formats that a source can have."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
CLASSES = ["cat", "dog"]
LABELS = [0, 0, 0, 1, 1, 1]  # sorted, as in many files


def encode(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def png(number: int) -> bytes:
    return encode(Image.fromarray(PIXELS[number]))


def make_folder(folder: Path) -> Path:
    for number, label in enumerate(LABELS):
        path = folder / CLASSES[label] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
    return folder


def make_parquet(
    path: Path,
    labels: list[Any] | None = LABELS,
    images: list[Any] | None = None,
    metadata: dict[str, Any] | None = None,
    **columns: list[Any],
) -> Path:
    cells = images or [{"bytes": png(i), "path": f"{i}.png"} for i in range(6)]
    table = pa.table({"image": cells, **({"label": labels} if labels is not None else {}), **columns})
    if metadata is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": metadata}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=4)
    return path


def make_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def make_class_tar(path: Path) -> Path:
    return make_tar(path, {f"{CLASSES[LABELS[i]]}/{i}.png": png(i) for i in range(6)})


MAKERS: dict[str, Callable[[Path], Path]] = {
    "folder": lambda tmp: make_folder(tmp / "pets"),
    "tar": lambda tmp: make_class_tar(tmp / "pets.tar"),
    "parquet": lambda tmp: make_parquet(tmp / "pets.parquet"),
    "torchvision": lambda tmp: make_folder(tmp / "pets"),
}
