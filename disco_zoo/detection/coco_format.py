"""COCO's instances file: images, annotations and categories in one JSON, boxes as x, y, width, height."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from disco_zoo.detection.annotations import AnnotatedImage, AnnotatedSet, Instance
from disco_zoo.errors import BadData, shown


def read_coco(path: Path) -> AnnotatedSet:
    """Read an instances file; the images are looked for beside it, as COCO and common exports place them.

    Categories are numbered in the order of their ids. Those that no annotation uses are kept when the file has
    others: two files of one dataset then agree.

    Raises:
        BadData: no JSON, not of this format, or the images are nowhere.
    """
    document = _load(path)
    try:
        categories = sorted(document["categories"], key=lambda row: int(row["id"]))
        labels = {int(row["id"]): number for number, row in enumerate(categories)}
        instances: dict[int, list[Instance]] = {int(row["id"]): [] for row in document["images"]}
        for row in document["annotations"]:
            instances[int(row["image_id"])].append(_instance(row, labels))
        files = [str(row["file_name"]) for row in document["images"]]
        root = _image_root(path, files)
        images = tuple(
            AnnotatedImage(root / file, int(row["width"]), int(row["height"]), tuple(instances[int(row["id"])]))
            for file, row in zip(files, document["images"], strict=True)
        )
        names = tuple(str(row["name"]) for row in categories)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__} {error}"
        raise BadData(f"{path} is no COCO instances file: {shown(reason)}") from error
    if len({image.path for image in images}) != len(images):
        raise BadData(f"{path} lists an image twice.")
    return AnnotatedSet(str(path), names, images)


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadData(f"there is no annotation file {path}.") from error
    except (OSError, ValueError) as error:
        raise BadData(f"{path} is no readable JSON file: {shown(str(error))}") from error


def _instance(row: dict[str, Any], labels: dict[int, int]) -> Instance:
    x, y, width, height = (float(value) for value in row["bbox"])
    if not all(map(math.isfinite, (x, y, width, height))):
        raise ValueError(f"bbox {row['bbox']}")
    outline = row.get("segmentation") or None
    return Instance(
        (x, y, x + width, y + height), labels[int(row["category_id"])], bool(row.get("iscrowd", 0)),
        float(row.get("area") or 0.0), outline,
    )  # fmt: skip


def _image_root(path: Path, files: list[str]) -> Path:
    """The folder in which the first image lies; the annotation file's own when it lies nowhere."""
    split = path.stem.rpartition("_")[2]  # instances_train2017 -> train2017
    top = path.parent.parent
    candidates = [path.parent, path.parent / "images", top / split, top / "images" / split, top / "images", top,
                  path.parent / split, path.parent / path.stem]  # fmt: skip
    return next((folder for folder in candidates if files and (folder / files[0]).is_file()), candidates[0])
