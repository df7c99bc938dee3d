"""Runs a detector over annotated images and computes average precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from disco_zoo.data.unreadable import UnreadableTally, unreadable_limit
from disco_zoo.models.frozen import frozen
from disco_zoo.tasks.detection.average_precision import average_precision, compact
from disco_zoo.tasks.detection.batches import in_order
from disco_zoo.tasks.detection.data.annotations import AnnotatedSet
from disco_zoo.tasks.detection.settings import DetectionSettings

Progress = Callable[[int, int], None]
BATCH_SIZE = 4


def detect(
    detector: Any,
    annotated: AnnotatedSet,
    *,
    device: torch.device | str,
    workers: int = 0,
    precision: str = "fp32",
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """What the detector finds in each image, in order (see `average_precision.compact`).

    The detector's modes and torch's random state are as before. In an image that cannot be read nothing is found.

    Raises:
        BadData: too many images cannot be read.
    """
    tally = UnreadableTally(unreadable_limit(len(annotated)))
    nothing = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64)}
    detections: list[dict[str, Any]] = [{**nothing, "rles": []} for _ in annotated.images]
    done, kind = 0, torch.device(device).type
    with frozen(detector, device):
        for items in in_order(annotated, BATCH_SIZE, workers):
            for pixels, index, fault in items:
                if pixels is None:
                    tally.add(index, fault)
            tally.check()
            read = [(pixels.to(device) / 255.0, index) for pixels, index, _ in items if pixels is not None]
            if read:
                with torch.autocast(kind, torch.bfloat16, enabled=precision == "bf16"):
                    outputs = detector([pixels for pixels, _ in read])
                for output, (_, index) in zip(outputs, read, strict=True):
                    detections[index] = compact(output)
            done += len(items)
            if progress is not None:
                progress(done, len(annotated))
    return detections


def measure_detector(
    detector: Any,
    annotated: AnnotatedSet,
    settings: DetectionSettings,
    *,
    masks: bool,
    device: torch.device | str,
    workers: int = 0,
    progress: Progress | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Average precisions in percent, and the detections they came from."""
    detections = detect(
        detector, annotated, device=device, workers=workers, precision=settings.precision, progress=progress
    )
    return average_precision(annotated, detections, masks=masks, points=settings.ap_points), detections
