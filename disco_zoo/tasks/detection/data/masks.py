"""Converts COCO's outlines of objects to pixel masks and back, by COCO's own rasterizer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from disco_zoo.errors import require

EXTRA = "detect"


def mask_of(outline: Any, height: int, width: int) -> Tensor:
    """Pixels (height, width), uint8 0 or 1, of polygons or RLE; all 0 without an outline."""
    if outline is None:
        return torch.zeros(height, width, dtype=torch.uint8)
    coding = _coding()
    return torch.from_numpy(np.ascontiguousarray(coding.decode(rle_of(outline, height, width)))).to(torch.uint8)


def has_outline(outline: Any, height: int, width: int) -> bool:
    """Whether `mask_of` can draw it into an image of this size."""
    if not isinstance(outline, dict):
        return outline is not None
    counts = outline["counts"]
    whole = not isinstance(counts, list) or sum(counts) == height * width
    return whole and list(outline["size"]) == [height, width]


def rle_of(outline: Any, height: int, width: int) -> dict[str, Any]:
    """COCO's compressed RLE of polygons or of either kind of RLE."""
    coding = _coding()
    if isinstance(outline, list):
        return dict(coding.merge(coding.frPyObjects(outline, height, width)))
    if isinstance(outline["counts"], list):
        return dict(coding.frPyObjects(outline, height, width))
    return dict(outline)


def rle_of_pixels(mask: Tensor) -> dict[str, Any]:
    """COCO's compressed RLE of a boolean mask (H, W)."""
    rle = _coding().encode(np.asfortranarray(mask.cpu().numpy().astype(np.uint8)))
    counts = rle["counts"]
    return {"size": list(rle["size"]), "counts": counts.decode() if isinstance(counts, bytes) else counts}


def _coding() -> Any:
    return require("faster_coco_eval.core.mask", EXTRA)
