"""Predict the class of each pixel and count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from disco_zoo.data.unreadable import UnreadableTally, unreadable_limit
from disco_zoo.errors import BadData, counted
from disco_zoo.models.frozen import frozen
from disco_zoo.tasks.segmentation.batches import whole_image
from disco_zoo.tasks.segmentation.data import MaskedSet
from disco_zoo.tasks.segmentation.head import LinearSegmenter
from disco_zoo.tasks.segmentation.scores import pixel_counts, segmentation_figures

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
    if not int(counts.sum()):
        raise BadData(f"none of the {counted(len(masked), 'image')} of {masked.name} could be measured.")
    return segmentation_figures(counts, masked.class_names)
