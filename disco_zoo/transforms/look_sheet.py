"""A contact sheet of a source: a few images of each class after the evaluation transform."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from torchvision.transforms.v2.functional import to_pil_image

from disco_zoo.core.files import write_out
from disco_zoo.data.dataset import ImageSource
from disco_zoo.errors import UnreadableImage
from disco_zoo.transforms.eval import eval_transform

MOST_CLASSES, IMAGES_A_CLASS = 16, 6
TILE, LABEL_HEIGHT, MARGIN = 112, 16, 4  # pixels
LETTERS = 90


def look_sheet(source: ImageSource, path: Path, image_size: int) -> int:
    """Write a PNG with a row for each class (evenly spaced ones of many), without labels for evenly spaced images.

    Args:
        image_size: side of the centre crop in pixels, see `eval_transform`.

    Returns:
        How many images are on it.

    Raises:
        CannotWrite: no room or no permission.
    """
    rows = _rows(source)
    height = LABEL_HEIGHT + TILE + MARGIN
    width = MARGIN + IMAGES_A_CLASS * (TILE + MARGIN)
    sheet = Image.new("RGB", (width, MARGIN + height * len(rows)), "white")
    draw = ImageDraw.Draw(sheet)
    transform = eval_transform(image_size)
    for number, (title, indices) in enumerate(rows):
        top = MARGIN + number * height
        draw.text((MARGIN, top), title[:LETTERS], fill="black")
        for place, index in enumerate(indices):
            corner = (MARGIN + place * (TILE + MARGIN), top + LABEL_HEIGHT)
            try:
                seen = to_pil_image(transform(source.image(index)))
            except UnreadableImage:
                draw.text(corner, "unreadable", fill="red")
                continue
            sheet.paste(seen.resize((TILE, TILE), Image.Resampling.BILINEAR), corner)
    write_out(path, lambda partial: sheet.save(partial, "PNG"))
    return sum(len(indices) for _, indices in rows)


def _rows(source: ImageSource) -> list[tuple[str, Sequence[int]]]:
    if source.labels is None:
        return [("no labels", _spread(range(len(source)), IMAGES_A_CLASS))]
    labels = np.asarray(source.labels)
    classes = np.unique(labels[labels >= 0]).tolist()
    names = source.class_names
    rows = []
    for label in _spread(classes, MOST_CLASSES):
        members = np.flatnonzero(labels == label).tolist()
        title = f"{names[label] if names else label} ({len(members):,})"
        rows.append((title, _spread(members, IMAGES_A_CLASS)))
    return rows


def _spread(items: Sequence[int], wanted: int) -> Sequence[int]:
    """At most `wanted`, evenly over all."""
    count = min(len(items), wanted)
    return [items[position * len(items) // count] for position in range(count)]
