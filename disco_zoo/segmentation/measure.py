"""Predict the class of each pixel and count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from disco_zoo.datasets import UnreadableTally
from disco_zoo.errors import BadData
from disco_zoo.evaluate.features import frozen, unreadable_limit
from disco_zoo.segmentation.batches import whole_image
from disco_zoo.segmentation.data import MaskedSet
from disco_zoo.segmentation.head import LinearSegmenter
from disco_zoo.segmentation.scores import pixel_counts, segmentation_figures


def predict(segmenter: LinearSegmenter, masked: MaskedSet, index: int, image_size: int) -> Tensor:
    """Class numbers int64 (H, W) of one image in its own size; the segmenter is in eval mode.

    Raises:
        BadData: the image cannot be read.
    """
    image = masked.image(index)
    pixels, (height, width) = whole_image(image, image_size)
    scores = segmenter(pixels[None].to(segmenter.device))
    # To the padded input first, so that the padding can be cut off exactly.
    scores = F.interpolate(scores, size=pixels.shape[-2:], mode="bilinear", align_corners=False)[..., :height, :width]
    scores = F.interpolate(scores, size=(image.height, image.width), mode="bilinear", align_corners=False)
    return scores[0].argmax(dim=0).cpu()


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
                predicted = predict(segmenter, masked, index, image_size)
                counts += pixel_counts(predicted, masked.mask(index), len(counts))
            except BadData as error:
                tally.add(index, str(error))
                tally.check()
            if progress is not None:
                progress(index + 1, len(masked))
    if not int(counts.sum()):
        raise BadData(f"none of the {len(masked)} images of {masked.name} could be measured.")
    return segmentation_figures(counts, masked.class_names)
