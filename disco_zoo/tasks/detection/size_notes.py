"""Warns of boxes that are too small or too large for the chosen image sizes."""

from __future__ import annotations

import math

from disco_zoo.tasks.detection.data.annotations import AnnotatedSet
from disco_zoo.tasks.detection.settings import DetectionSettings

SHARE = 0.25  # of the boxes
FACTOR = 2.0  # anchors reach boxes of half to twice their side: IoU with them falls to 1/4 there


def size_notes(annotated: AnnotatedSet, settings: DetectionSettings) -> list[str]:
    """A note where many boxes, at the size at which is measured, lie beyond the reach of the anchors."""
    sides, size = [], settings.sizes[-1]
    for image in annotated.images:
        scale = min(size / min(image.width, image.height), settings.max_size / max(image.width, image.height))
        boxes = [instance.box for instance in image.instances if not instance.ignore]
        sides += [scale * math.sqrt((x2 - x1) * (y2 - y1)) for x1, y1, x2, y2 in boxes]
    least, most = min(settings.anchor_sizes) / FACTOR, max(settings.anchor_sizes) * FACTOR
    small, large = sum(side < least for side in sides), sum(side > most for side in sides)
    notes = []
    if small > SHARE * len(sides):
        notes.append(
            f"{small} of {len(sides)} boxes are under {least:g} pixels once images are resized to {size}. "
            "Small objects need a larger --set sizes=[...] or smaller anchor_sizes"
        )
    if large > SHARE * len(sides):
        notes.append(
            f"{large} of {len(sides)} boxes are over {most:g} pixels once images are resized to {size}. "
            "Raise --set anchor_sizes=[...]"
        )
    return notes
