"""A sheet of images, their masks and the predicted ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from disco_zoo.errors import require
from disco_zoo.models.frozen import frozen
from disco_zoo.plotting.style import COLORS, drawing
from disco_zoo.tasks.segmentation.data import IGNORED, MaskedSet
from disco_zoo.tasks.segmentation.head import LinearSegmenter
from disco_zoo.tasks.segmentation.measure import predict

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
        for column, number in enumerate(spread):
            truth, found = masked.mask(number), predict(segmenter, masked.image(number), image_size)
            rows = [np.asarray(masked.image(number)), colored(truth), colored(found)]
            for axis, pixels in zip(axes[:, column], rows, strict=True):
                axis.imshow(pixels, interpolation="nearest")
                axis.set(xticks=[], yticks=[])
        for axis, label in zip(axes[:, 0], ("image", "mask", "predicted"), strict=True):
            axis.set_ylabel(label)
        _legend(figure, masked.class_names or ())
    return [int(number) for number in spread]


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
