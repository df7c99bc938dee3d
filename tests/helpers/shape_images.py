"""Coloured shapes on noise with boxes, outlines and masks, in the formats that detection and segmentation read."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

SHAPES = ("disc", "square", "triangle")
SIZE = 128
Shape = tuple[int, list[tuple[float, float]]]  # class number, outline


def shape_image(seed: int, size: int = SIZE) -> tuple[Image.Image, list[Shape]]:
    """One to three shapes of any colour that do not touch, on noise: the class is the outline alone."""
    draws = np.random.default_rng(seed)
    image = Image.fromarray(draws.integers(60, 140, (size, size, 3), dtype=np.uint8))
    pen, shapes, taken = ImageDraw.Draw(image), [], []
    for _ in range(draws.integers(1, 4)):
        radius = draws.uniform(size / 10, size / 5)
        x, y = draws.uniform(radius + 1, size - radius - 1, 2)
        if any(math.hypot(x - a, y - b) < 1.5 * (radius + r) for a, b, r in taken):
            continue
        label = int(draws.integers(len(SHAPES)))
        outline = _outline(label, x, y, radius)
        color = tuple(int(v) for v in np.where(draws.random(3) < 0.5, 20, 235))
        pen.polygon(outline, fill=color)
        shapes.append((label, outline))
        taken.append((x, y, radius))
    return image, shapes


def deepen(folder: Path, white: int = 4095) -> None:
    """Make the images of a folder grey ones of 16 bits, of which `white` is white."""
    for path in folder.iterdir():
        values = np.asarray(Image.open(path).convert("L"), np.float64) * (white / 255)
        Image.fromarray(values.round().astype(np.uint16)).save(path)


def _outline(label: int, x: float, y: float, radius: float) -> list[tuple[float, float]]:
    corners, first = {0: (24, 0.0), 1: (4, math.pi / 4), 2: (3, -math.pi / 2)}[label]
    angles = [first + 2 * math.pi * n / corners for n in range(corners)]
    return [(x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles]


def box_of(outline: list[tuple[float, float]]) -> tuple[float, float, float, float]:
    """x1, y1, x2, y2."""
    xs, ys = [x for x, _ in outline], [y for _, y in outline]
    return min(xs), min(ys), max(xs), max(ys)


def make_coco(folder: Path, num_train: int, num_test: int, size: int = SIZE) -> Path:
    """COCO's own layout, with category ids that are neither consecutive nor sorted."""
    for split, number, first in (("train2017", num_train, 0), ("val2017", num_test, 100_000)):
        write_instances(
            folder / "annotations" / f"instances_{split}.json", coco_split(folder / split, number, first, size)
        )
    return folder


def coco_split(images: Path, number: int, first_seed: int, size: int = SIZE) -> dict[str, Any]:
    """Write the images and return what belongs into their instances file."""
    images.mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    files = []
    for place in range(number):
        image, shapes = shape_image(first_seed + place, size)
        name = f"{place:06d}.png"
        image.save(images / name)
        files.append({"id": 1000 + place, "file_name": name, "width": size, "height": size})
        for label, outline in shapes:
            x1, y1, x2, y2 = box_of(outline)
            flat = [round(value, 2) for point in outline for value in point]
            box = [x1, y1, x2 - x1, y2 - y1]
            rows.append(
                {
                    "id": len(rows) + 1,
                    "image_id": 1000 + place,
                    "category_id": CATEGORY_IDS[label],
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                    "segmentation": [flat],
                }
            )
    categories = [{"id": CATEGORY_IDS[label], "name": name} for label, name in enumerate(SHAPES)]
    return {"images": files, "annotations": rows, "categories": categories[::-1]}


CATEGORY_IDS = (3, 7, 90)


def write_instances(path: Path, document: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def make_voc(folder: Path, splits: dict[str, int], size: int = SIZE) -> Path:
    """A VOC folder; boxes are whole pixels that count from 1. The last object of each image is difficult."""
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    first = 0
    for split, number in splits.items():
        names = [f"{split}_{place}" for place in range(number)]
        (folder / "ImageSets/Main" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for name in names:
            image, shapes = shape_image(first, size)
            first += 1
            image.save(folder / "JPEGImages" / f"{name}.jpg", quality=95)
            (folder / "Annotations" / f"{name}.xml").write_text(_voc_xml(shapes, size))
    return folder


def _voc_xml(shapes: list[Shape], size: int) -> str:
    objects = ""
    for place, (label, outline) in enumerate(shapes):
        x1, y1, x2, y2 = (round(value) for value in box_of(outline))
        objects += (
            f"<object><name>{SHAPES[label]}</name><difficult>{int(place > 0 and place == len(shapes) - 1)}</difficult>"
            f"<bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        )
    sizes = f"<size><width>{size}</width><height>{size}</height><depth>3</depth></size>"
    return f"<annotation>{sizes}{objects}</annotation>"


def shape_mask(shapes: list[Shape], size: int = SIZE) -> Image.Image:
    """Palette image of class numbers: 0 is background, 255 the line around each shape, as in VOC."""
    mask = Image.new("P", (size, size))
    mask.putpalette([value for n in range(256) for value in (n, 255 - n, n * 7 % 256)])
    pen = ImageDraw.Draw(mask)
    for label, outline in shapes:
        pen.polygon(outline, fill=label + 1, outline=255)
    return mask


def make_mask_folder(folder: Path, splits: dict[str, int], size: int = SIZE) -> Path:
    """FOLDER/{split}/images/*.png beside FOLDER/{split}/masks/*.png."""
    first = 0
    for split, number in splits.items():
        for name in ("images", "masks"):
            (folder / split / name).mkdir(parents=True, exist_ok=True)
        for place in range(number):
            image, shapes = shape_image(first, size)
            first += 1
            image.save(folder / split / "images" / f"{place}.png")
            shape_mask(shapes, size).save(folder / split / "masks" / f"{place}.png")
    (folder / "classes.txt").write_text("background\n" + "".join(f"{name}\n" for name in SHAPES))
    return folder
