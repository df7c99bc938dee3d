"""COCO's instances file: images, annotations and categories in one JSON, boxes as x, y, width, height.

What labelling tools write differs in places from COCO's own files: ids that are texts, sizes that are missing, file
names with folders of another machine. All of this is read; what cannot be meant is refused by name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from disco_zoo.data.split_files import subfolder
from disco_zoo.errors import BadData, shown
from disco_zoo.tasks.detection.annotations import AnnotatedImage, AnnotatedSet, Instance

_CORNERS = 3  # of a polygon, at least
ANNOTATION_FOLDERS = ("annotations", "annotation", "labels", "json")
JUDGED_BY = 20  # images, of which one is found, tell where all lie


def read_coco(path: Path, class_names: Sequence[str] | None = None) -> AnnotatedSet:
    """Read an instances file; the images are looked for beside it, as COCO and common exports place them.

    Args:
        class_names: in the wanted order; by default the file's categories in the order of their ids, also those that
            no annotation uses. Categories of one name are one class.

    Returns:
        The set; an image whose size the file does not say has width and height 0.

    Raises:
        BadData: no JSON, not of this format, or a class that is not among `class_names`.
    """
    document = _load(path)
    try:
        categories = _categories(_list(document, "categories"))
        names = tuple(class_names or dict.fromkeys(categories.values()))
        rows = _list(document, "images")
        instances = _instances(_list(document, "annotations"), [_id(row) for row in rows], categories, names)
        files = [str(_value(row, "file_name", f"image {_id(row)}")) for row in rows]
        found, outside = _found_files(path, files)
        images = tuple(
            AnnotatedImage(file, _side(row, "width"), _side(row, "height"), tuple(instances[_id(row)]))
            for file, row in zip(found, rows, strict=True)
        )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        reason = str(error) if type(error) is ValueError else f"{type(error).__name__} {error}"
        raise BadData(f"{path} is no COCO instances file: {shown(reason)}") from error
    if len({image.path for image in images}) != len(images):
        raise BadData(f"{path} lists an image twice.")
    notes = tuple(note for note in (outside, _crowd_note(images)) if note)
    return AnnotatedSet(str(path), names, images, notes, labels_from=f"the categories of {path.name}")


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise BadData(f"there is no annotation file {path}.") from error
    except (OSError, ValueError) as error:
        raise BadData(f"{path} is no readable JSON file: {shown(str(error))}") from error


def _list(document: Any, key: str) -> list[dict[str, Any]]:
    if not isinstance(document, dict) or not isinstance(document.get(key), list):
        raise ValueError(f"it has no list '{key}'")
    rows: list[dict[str, Any]] = document[key]
    return rows


def _value(row: Mapping[str, Any], key: str, title: str) -> Any:
    if key not in row:
        raise ValueError(f"{title} has no '{key}'")
    return row[key]


def _id(row: Mapping[str, Any]) -> str:
    """As text: some tools write numbers here and texts there."""
    return str(_value(row, "id", "an image or category"))


def _categories(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Id -> name, by rising id where the ids are numbers, else in the file's order."""
    names = {_id(row): str(_value(row, "name", f"category {_id(row)}")).strip() for row in rows}
    if len(names) != len(rows):
        raise ValueError("two categories have the same id")
    numbers = all(key.isdigit() for key in names)
    return {key: names[key] for key in (sorted(names, key=int) if numbers else names)}


def _instances(
    rows: Sequence[Mapping[str, Any]], image_ids: Sequence[str], categories: Mapping[str, str], names: Sequence[str]
) -> dict[str, list[Instance]]:
    """Image id -> its objects."""
    instances: dict[str, list[Instance]] = {key: [] for key in image_ids}
    if len(instances) != len(image_ids):
        raise ValueError("two images have the same id")
    number = {name: label for label, name in enumerate(names)}
    for row in rows:
        title = f"annotation {row.get('id', '?')}"
        image, category = str(_value(row, "image_id", title)), str(_value(row, "category_id", title))
        if image not in instances:
            raise ValueError(f"{title} has image_id {image}, which no image has")
        if category not in categories:
            raise ValueError(f"{title} has category_id {category}, which no category has")
        if categories[category] not in number:
            raise BadData(f"{title} in the test images is of '{categories[category]}', which no training image has.")
        instances[image].append(_instance(row, number[categories[category]], title))
    return instances


def _instance(row: Mapping[str, Any], label: int, title: str) -> Instance:
    box = _value(row, "bbox", title)
    if not isinstance(box, list) or len(box) != 4 or not math.isfinite(sum(map(float, box))):
        raise ValueError(f"{title} has bbox {box}, which should be [x, y, width, height]")
    x, y, width, height = map(float, box)
    crowd = bool(row.get("iscrowd", 0))
    return Instance(
        (x, y, x + width, y + height),
        label,
        ignore=crowd,
        learn=not crowd,
        area=_area(row.get("area")),
        outline=_outline(row.get("segmentation")),
    )


def _area(value: Any) -> float:
    """As written where it is positive; 0 for that of the box."""
    area = float(value or 0.0)
    return area if math.isfinite(area) and area > 0 else 0.0


def _outline(value: Any) -> Any:
    """COCO's segmentation, without polygons of fewer than three corners; None where nothing is left."""
    if isinstance(value, dict):
        return value if value.get("counts") and value.get("size") else None
    if not isinstance(value, list):
        return None
    polygons = value if all(isinstance(one, list) for one in value) else [value]
    whole = [one for one in polygons if len(one) >= 2 * _CORNERS and len(one) % 2 == 0 and math.isfinite(sum(one))]
    return whole or None


def _side(row: Mapping[str, Any], key: str) -> int:
    return int(row.get(key) or 0)


def _found_files(path: Path, files: list[str]) -> tuple[list[Path], str]:
    """Where the images lie, and a note where that is outside of the set's folder; without any, beside the file.

    Judged by the first images. Those inside of the set's folder are meant: beside it lie other sets.
    """
    split = path.stem.rpartition("_")[2]  # instances_train2017 -> train2017
    root = path.parent.parent if path.parent.name.lower() in ANNOTATION_FOLDERS else path.parent
    for folder in (root, path.parent, path.parent.parent):
        inner = subfolder(folder, "images")
        places = [folder, inner, subfolder(folder, split), subfolder(inner, split), subfolder(folder, "data")]
        # As written; with another system's separators; without the folders of another machine.
        for spelling in (str, _with_slashes, _name_alone):
            for place in (*places, subfolder(folder, path.stem)):
                if any((place / spelling(file)).is_file() for file in files[:JUDGED_BY]):
                    outside = folder not in (root, path.parent)
                    note = f"the images are read from {place}, outside of {root}" if outside else ""
                    return [place / spelling(file) for file in files], note
    return [path.parent / file for file in files], ""


def _with_slashes(file: str) -> str:
    return file.replace("\\", "/")


def _name_alone(file: str) -> str:
    return PureWindowsPath(file).name


def _crowd_note(images: Sequence[AnnotatedImage]) -> str:
    crowds = sum(not instance.learn for image in images for instance in image.instances)
    return f"crowds (iscrowd), neither learnt nor measured: {crowds}" if crowds else ""
