"""Mean intersection over union from counts of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from disco_zoo.tasks.segmentation.data import IGNORED


def pixel_counts(predicted: Tensor, truth: Tensor, num_classes: int) -> Tensor:
    """Confusion matrix int64 (classes, classes), truth by row, of class numbers of one shape.

    Where the truth is 255 nothing is counted.
    """
    kept = truth != IGNORED
    cells = truth[kept] * num_classes + predicted[kept]
    return torch.bincount(cells.flatten(), minlength=num_classes**2).reshape(num_classes, num_classes)


def segmentation_figures(counts: Tensor, class_names: Sequence[str]) -> dict[str, Any]:
    """Figures in percent: `miou`, `pixel_accuracy` and `iou_per_class`, None for a class that is nowhere.

    A class counts in the mean where it is in the truth or was predicted, as in VOC's own evaluation.
    """
    right = counts.diagonal().double()
    union = counts.sum(0) + counts.sum(1) - counts.diagonal()
    shares = [100 * float(r) / int(u) if int(u) else None for r, u in zip(right, union, strict=True)]
    known = [share for share in shares if share is not None]
    return {
        "miou": round(sum(known) / len(known), 3),
        "pixel_accuracy": round(100 * float(right.sum() / counts.sum()), 3),
        "iou_per_class": {
            name: None if share is None else round(share, 3) for name, share in zip(class_names, shares, strict=True)
        },
    }
