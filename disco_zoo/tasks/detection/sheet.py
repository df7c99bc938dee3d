"""A sheet of images with true and detected boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from disco_zoo.data.pixels.bit_depth import ValueRanges
from disco_zoo.data.source_image import open_image
from disco_zoo.errors import require
from disco_zoo.plotting.style import COLORS, drawing
from disco_zoo.tasks.detection.annotations import EXTRA, AnnotatedImage, AnnotatedSet

COLUMNS, MAX_IMAGES = 4, 12
MIN_SCORE = 0.5
LEGEND = f"white, dashed: annotated; coloured: found with a score of {MIN_SCORE} or more"
_INCHES = 3.0


def draw_sheet(
    annotated: AnnotatedSet,
    detections: Sequence[Mapping[str, Any]],
    path: str | Path,
    title: str,
    min_score: float = MIN_SCORE,
) -> list[int]:
    """Draw some images, evenly spread over the set: truth dashed, found boxes of at least `min_score` solid.

    Args:
        detections: of each image in order, from `average_precision.compact`; masks are tinted.
        path: the PNG to write.

    Returns:
        The numbers of the images that are shown.
    """
    spread = torch.linspace(0, len(annotated) - 1, min(len(annotated), MAX_IMAGES)).round().long().tolist()
    columns = min(COLUMNS, len(spread))
    rows = -(-len(spread) // columns)
    with drawing(_INCHES * columns, 0.8 + _INCHES * rows, title, path) as figure:
        axes = figure.subplots(rows, columns, squeeze=False).flatten()
        for axis in axes:
            axis.set_axis_off()
        for axis, number in zip(axes, spread, strict=False):
            found = detections[number]
            _draw(axis, annotated.images[number], found, annotated.class_names, min_score, annotated.ranges)
    return [int(number) for number in spread]


def _draw(
    axis: Any,
    image: AnnotatedImage,
    found: Mapping[str, Any],
    names: Sequence[str],
    min_score: float,
    ranges: ValueRanges,
) -> None:
    try:
        pixels = open_image(image.path, (image.width, image.height), ranges)
    except Exception as error:  # decoders of damaged bytes raise nearly anything
        axis.set_title(f"unreadable: {error}"[:40], fontsize=9)
        return
    # The surest last: it lies above the others.
    certain = [n for n, score in enumerate(found["scores"].tolist()) if score >= min_score][::-1]
    shown = np.asarray(pixels)
    for number in certain if found.get("rles") else ():
        shown = _tinted(shown, found["rles"][number], COLORS[(int(found["labels"][number]) - 1) % len(COLORS)])
    axis.imshow(shown, interpolation="nearest")
    for instance in image.instances:
        _rectangle(axis, instance.box, "white", "--")
    for number in certain:
        label, box = int(found["labels"][number]) - 1, found["boxes"][number].tolist()
        color = COLORS[label % len(COLORS)]
        _rectangle(axis, box, color, "-")
        axis.text(
            box[0],
            box[1],
            f"{names[label]} {float(found['scores'][number]):.2f}",
            fontsize=9,
            color="white",
            verticalalignment="bottom",
            clip_on=True,
            bbox={"facecolor": color, "edgecolor": "none", "pad": 1},
        )


def _rectangle(axis: Any, box: Sequence[float], color: str, style: str) -> None:
    patches = require("matplotlib.patches", EXTRA)
    x1, y1, x2, y2 = box
    # Pixel n covers n - 0.5 to n + 0.5 on matplotlib's axis.
    axis.add_patch(
        patches.Rectangle(
            (x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, edgecolor=color, linestyle=style, linewidth=1.6
        )
    )


def _tinted(pixels: Any, rle: dict[str, Any], color: str) -> Any:
    coding = require("faster_coco_eval.core.mask", EXTRA)
    inside = coding.decode(rle).astype(bool)
    tint = np.array([int(color[n : n + 2], 16) for n in (1, 3, 5)])
    tinted = pixels.copy()
    tinted[inside] = (0.5 * tinted[inside] + 0.5 * tint).astype(np.uint8)
    return tinted
