"""Figures of a run folder: training curves and maps of the embedding, as PNG.

Drawn through matplotlib's object interface, so that nothing global changes and no display is needed. The files
carry no date: the same input gives the same bytes.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from disco_zoo.errors import BadData, require
from disco_zoo.randomness import stream_generator

FONT_SIZE = 10  # points; ticks have one less, titles one more
DPI = 120
# Okabe and Ito's colours without yellow, which is faint on white, and two dark ones to make ten.
COLOURS = (
    "#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7", "#000000", "#999999", "#7f3c8d", "#8c564b"
)  # fmt: skip
MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*", "<", ">")
LEGEND_ROWS = 20

AXIS_LABELS = {
    "loss": "loss",
    "lr": "learning rate",
    "images_per_s": "images per second",
}


@dataclass(frozen=True)
class Projection:
    """A map of features: points float32 (N, 2) and how they were obtained."""

    points: Tensor
    name: str


def plot_curves(metrics: Sequence[Mapping[str, Any]], path: str | Path, title: str) -> None:
    """Draw each metric over the steps: losses together, then accuracies, learning rate and speed.

    Args:
        metrics: records with `step` and any numbers, such as `loss`, `loss_distill`, `lr`, `images_per_s`,
            `knn20_top1`. A record need not have them all.
        path: the PNG to write.
        title: above the figure.

    Raises:
        BadData: no record has a step and a number.
    """
    panels = _panels(metrics)
    if not panels:
        raise BadData("There are no metrics to draw: no record has a step and a number.")
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = _figure(4.8 * columns, 0.5 + 2.9 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis, (label, keys) in zip(axes, panels.items(), strict=False):
        for number, key in enumerate(keys):
            _draw_series(axis, metrics, key, COLOURS[number % len(COLOURS)])
        axis.set(xlabel="step", ylabel=label)
        axis.grid(alpha=0.3)
        axis.margins(x=0.02)
        if len(keys) > 1 or keys[0] != "loss" and label not in AXIS_LABELS.values():
            axis.legend(frameon=False)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    figure.suptitle(title)
    _save(figure, path)
