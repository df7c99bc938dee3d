"""The confusion matrix of a classifier, its most frequent errors, and its figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from disco_zoo.plotting.style import drawing

MAX_NUMBERED, MAX_NAMED = 20, 60  # classes up to which cells have numbers, and rows names
MAX_LETTERS = 18  # of a class's name
LETTER = 0.09  # inches, with room around it
DARK = 55  # percent from which numbers are white


@dataclass(frozen=True)
class Confusion:
    """One pair of classes: `count` images of `truth`, `share` percent of them, were taken for `taken_for`."""

    truth: str
    taken_for: str
    count: int
    share: float


def confusion_matrix(labels: Tensor, predictions: Tensor, num_classes: int) -> Tensor:
    """Counts int64 (K, K): row = true class, column = predicted class, of labels and predictions int64 (N,)."""
    if len(labels) != len(predictions):
        raise ValueError(f"{len(labels)} labels and {len(predictions)} predictions")
    cells = labels.long() * num_classes + predictions.long()
    return torch.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def accuracy(matrix: Tensor) -> float:
    """Share of the images on the diagonal, in percent."""
    return 100.0 * matrix.trace().item() / matrix.sum().item()


def recalls(matrix: Tensor) -> Tensor:
    """Share of each true class that was found, in percent, float64 (K,); NaN for a class without images."""
    return 100.0 * matrix.diag().double() / matrix.sum(dim=1).double()


def mean_recall(matrix: Tensor) -> float:
    """Balanced accuracy in percent: the mean recall over the classes that have images."""
    return float(recalls(matrix).nanmean())


def precisions(matrix: Tensor) -> Tensor:
    """Share of what was called a class that was it, in percent, float64 (K,); NaN for a class never predicted."""
    return 100.0 * matrix.diag().double() / matrix.sum(dim=0).double()


def most_confused(matrix: Tensor, names: Sequence[str], number: int) -> list[Confusion]:
    """The `number` largest cells off the diagonal, by share of the true class; none without an image."""
    shares = matrix.double() / matrix.sum(dim=1, keepdim=True).clamp(min=1)
    shares.fill_diagonal_(0.0)
    order = shares.flatten().argsort(descending=True, stable=True)[:number].tolist()
    pairs = [divmod(cell, len(names)) for cell in order]
    return [
        Confusion(names[row], names[column], int(matrix[row, column]), 100.0 * float(shares[row, column]))
        for row, column in pairs
        if shares[row, column] > 0
    ]


def plot_confusion(matrix: Tensor, names: Sequence[str], path: str | Path, title: str) -> None:
    """Draw a matrix as shades of its rows' shares, with percentages where there is room for them.

    Args:
        matrix: counts (K, K) of `confusion_matrix`.
        names: of the classes, in order.
        path: the picture to write.
        title: above it.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    classes = len(names)
    shares = (100.0 * matrix.double() / matrix.sum(dim=1, keepdim=True).clamp(min=1)).tolist()
    side = min(11.0, 2.6 + 0.45 * classes)
    with drawing(side + 1.2, side, title, path) as figure:
        axis = figure.subplots()
        shade = axis.imshow(shares, cmap="Blues", vmin=0.0, vmax=100.0, interpolation="nearest")
        _name_axes(axis, names, (side - 2.2) / classes)
        if classes <= MAX_NUMBERED:
            _number_cells(axis, shares)
        bar = figure.colorbar(shade, ax=axis, fraction=0.046, pad=0.02)
        bar.set_label("percent of the true class")
        bar.outline.set_visible(False)


def short_name(name: str) -> str:
    """A class's name in at most `MAX_LETTERS` letters; folders often have long ones without a space."""
    return name if len(name) <= MAX_LETTERS else f"{name[: MAX_LETTERS - 1].rstrip()}…"


def _name_axes(axis: Any, names: Sequence[str], cell: float) -> None:
    """Names along both sides of cells `cell` inches wide, upright where they would meet."""
    every = max(1, math.ceil(len(names) / MAX_NAMED))
    places = range(0, len(names), every)
    labels = [short_name(names[place]) for place in places]
    upright = 90 if LETTER * max(map(len, labels)) > every * cell else 0
    axis.set_xticks(list(places), labels, rotation=upright, parse_math=False)  # names may hold $
    axis.set_yticks(list(places), labels, parse_math=False)
    axis.set(xlabel="predicted", ylabel="true")
    axis.tick_params(length=0, labelsize=9 if len(labels) <= 30 else 6)
    for spine in axis.spines.values():
        spine.set_visible(False)


def _number_cells(axis: Any, shares: list[list[float]]) -> None:
    """Percentages; a share below half a percent is left blank, for zeros would hide what matters."""
    for row, cells in enumerate(shares):
        for column, share in enumerate(cells):
            if share >= 0.5:
                color = "white" if share > DARK else "black"
                axis.text(column, row, f"{share:.0f}", ha="center", va="center", color=color, fontsize=9)
