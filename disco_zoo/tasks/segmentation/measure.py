"""Predicts the class of each pixel, computes mean intersection over union, and draws a sheet of images and masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from disco_zoo.data.unreadable import UnreadableTally, unreadable_limit
from disco_zoo.errors import BadData, counted, require
from disco_zoo.models.encoder import frozen
from disco_zoo.plotting.style import COLORS, drawing
from disco_zoo.tasks.segmentation.batches import whole_image
from disco_zoo.tasks.segmentation.data import IGNORED, MaskedSet
from disco_zoo.tasks.segmentation.head import LinearSegmenter


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


CLASSES_AT_ONCE = 8  # scores of a photo in its own size are 100 MB each


def predict(segmenter: LinearSegmenter, image: Image.Image, image_size: int) -> Tensor:
    """Class numbers int64 (H, W) of an RGB image in its own size; the segmenter is in eval mode."""
    pixels, (height, width) = whole_image(image, image_size)
    scores = segmenter(pixels[None].to(segmenter.device))
    # To the padded input first, so that the padding can be cut off exactly.
    scores = F.interpolate(scores, size=pixels.shape[-2:], mode="bilinear", align_corners=False)[..., :height, :width]
    best, classes = torch.empty(0), torch.empty(0)
    for first, part in zip(range(0, scores.shape[1], CLASSES_AT_ONCE), scores.split(CLASSES_AT_ONCE, 1), strict=True):
        part = F.interpolate(part, size=(image.height, image.width), mode="bilinear", align_corners=False)[0]
        highest, number = part.max(dim=0)
        if first:
            number = torch.where(highest > best, number + first, classes)
            highest = torch.maximum(highest, best)
        best, classes = highest, number
    return classes.cpu()


def measure_segmenter(
    segmenter: LinearSegmenter,
    masked: MaskedSet,
    *,
    image_size: int,
    device: torch.device | str,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Figures in percent over all pixels of all images (see `segmentation_figures`).

    Raises:
        BadData: too many images cannot be read.
    """
    assert masked.class_names is not None  # `check_masks` names them
    counts = torch.zeros(len(masked.class_names), len(masked.class_names), dtype=torch.int64)
    tally = UnreadableTally(unreadable_limit(len(masked)))
    with frozen(segmenter, device):
        for index in range(len(masked)):
            try:
                predicted = predict(segmenter, masked.image(index), image_size)
                counts += pixel_counts(predicted, masked.mask(index), len(counts))
            except BadData as error:
                tally.add(index, str(error))
                tally.check()
            if progress is not None:
                progress(index + 1, len(masked))
    tally.say(f"Left out as unreadable: {counted(len(tally.messages), 'test image')}")
    if not int(counts.sum()):
        raise BadData(f"none of the {counted(len(masked), 'image')} of {masked.name} could be measured.")
    return segmentation_figures(counts, masked.class_names)


MAX_IMAGES = 6
_INCHES = 2.4


def draw_masks(
    segmenter: LinearSegmenter, masked: MaskedSet, image_size: int, path: str | Path, title: str
) -> list[int]:
    """Draw some images, evenly spread over the set, each with its mask and the predicted one below; their numbers."""
    spread = torch.linspace(0, len(masked) - 1, min(len(masked), MAX_IMAGES)).round().long().tolist()
    with (
        drawing(0.6 + _INCHES * len(spread), 1.0 + 3 * _INCHES, title, path) as figure,
        frozen(segmenter, segmenter.device),
    ):
        axes = figure.subplots(3, len(spread), squeeze=False)
        for column, number in zip(axes.T, spread, strict=True):
            _draw(column, segmenter, masked, number, image_size)
        for axis, label in zip(axes[:, 0], ("image", "mask", "predicted"), strict=True):
            axis.set_ylabel(label)
        _legend(figure, masked.class_names or ())
    return [int(number) for number in spread]


def _draw(column: Sequence[Any], segmenter: LinearSegmenter, masked: MaskedSet, number: int, image_size: int) -> None:
    for axis in column:
        axis.set(xticks=[], yticks=[])
    try:
        image, truth = masked.image(number), masked.mask(number)
    except BadData as error:
        column[0].set_title(f"unreadable: {error}"[:40], fontsize=9)
        return
    found = predict(segmenter, image, image_size)
    for axis, pixels in zip(column, (np.asarray(image), colored(truth), colored(found)), strict=True):
        axis.imshow(pixels, interpolation="nearest")


def colored(classes: Tensor) -> Any:
    """RGB uint8 (H, W, 3) of class numbers (H, W): 0 is light grey, others have the plots' colours, 255 is white."""
    palette = np.full((IGNORED + 1, 3), 255, dtype=np.uint8)
    for label in range(IGNORED):
        palette[label] = [int(_color(label)[n : n + 2], 16) for n in (1, 3, 5)]
    return palette[classes.numpy()]


def _color(label: int) -> str:
    return "#dddddd" if label == 0 else COLORS[(label - 1) % len(COLORS)]


def _legend(figure: Any, names: Sequence[str]) -> None:
    patches = require("matplotlib.patches", "train")
    shown = names[: len(COLORS) + 1]
    handles = [patches.Patch(color=_color(label), label=name) for label, name in enumerate(shown)]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False)
