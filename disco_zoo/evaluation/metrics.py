"""Figures of labels and of features: accuracy, its confidence interval, confusion of classes, effective rank, CKA.

Those without labels say how good a representation is, and how much of another one it holds: in float64 from Gram
matrices of the smaller side: 0.04 s for 512 × 1280 on a CPU core, where an SVD takes 0.2 s.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from disco_zoo.plotting.style import drawing


def top1_top5(scores: Tensor, labels: Tensor) -> tuple[float, float | None]:
    """Accuracies in percent of class scores (N, K); no top-5 with five classes or fewer."""
    top1 = 100.0 * (scores.argmax(dim=1) == labels).sum().item() / len(labels)
    if scores.shape[1] <= 5:
        return top1, None
    in_top5 = (scores.topk(5, dim=1).indices == labels[:, None]).any(dim=1)
    return top1, 100.0 * in_top5.sum().item() / len(labels)


def class_weight(num_classes: int, width: int, generator: torch.Generator) -> Tensor:
    """The papers' start of a linear classifier: weight (num_classes, width) ~ N(0, 0.01²); the bias starts at 0."""
    return torch.empty(num_classes, width).normal_(0.0, 0.01, generator=generator)


CONFIDENCE = "95 % Wilson interval over the test images; it says nothing of other seeds"


def wilson_interval(percent: float, num_images: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of an accuracy (Wilson 1927), in percent.

    It treats the test images as independent draws. Unlike the plain ± of a normal, it stays within 0 and 100 and
    has a width even where no image, or every image, was right.

    Args:
        percent: accuracy in percent.
        num_images: test images that it is a share of, at least 1.
        level: probability that the interval covers the accuracy on all images of this kind.
    """
    share, z = percent / 100, NormalDist().inv_cdf(0.5 + level / 2)
    spread = z * math.sqrt(share * (1 - share) / num_images + (z / (2 * num_images)) ** 2)
    middle, scale = share + z * z / (2 * num_images), 1 + z * z / num_images
    # Its ends are exact where no image, or every image, was right; rounding would leave 99.99999999999997.
    low = 0.0 if share <= 0 else 100 * max(0.0, (middle - spread) / scale)
    high = 100.0 if share >= 1 else 100 * min(1.0, (middle + spread) / scale)
    return low, high


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


EPSILON = 1e-7  # RankMe's
ROUNDING = torch.finfo(torch.float32).eps  # variation below this share of the features is none


def effective_rank(features: Tensor) -> float:
    """RankMe (Garrido et al. 2023, arXiv:2210.02885, equations 1 and 2): exp(−Σ p_k log p_k), from 1 to `rank_bound`.

    p_k = σ_k / Σ σ + 1e-7, with σ the singular values of the features as they are, not centred: features that are the
    same for all images have rank 1. So do features that are all zero.

    Args:
        features: (N, D), N images; finite.
    """
    rows = features.double()
    gram = rows @ rows.T if rows.shape[0] <= rows.shape[1] else rows.T @ rows
    values = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    shares = values / values.sum().clamp(min=torch.finfo(torch.float64).tiny) + EPSILON
    return float(torch.exp(-(shares * shares.log()).sum()))


def rank_bound(features: Tensor) -> int:
    """The largest effective rank that features (N, D) can have: min(N, D)."""
    return min(features.shape)


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Linear CKA (Kornblith et al. 2019, arXiv:1905.00414): HSIC of linear kernels, normalised; from 0 to 1.

    ‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖) in Frobenius norms, columns centred. It ignores rotations and the scale of either side. The
    estimate is the paper's and is biased: independent features of r equally strong directions have about r / (N + r),
    not 0. Features that do not vary beyond float32's rounding share nothing: 0.

    Args:
        x: (N, D), N images.
        y: (N, D'), of the same images; another width is fine.
    """
    (own, varies), (other, varies_too) = _centered_gram(x), _centered_gram(y)
    if not (varies and varies_too):
        return 0.0
    return float((own * other).sum() / (own.norm() * other.norm()))


def centered_cosine(x: Tensor, y: Tensor) -> float:
    """Mean over rows of cos(x_i − x̄, y_i − ȳ), from −1 to 1: what all images have in common does not count.

    Args:
        x, y: (N, D), of the same images.
    """
    x, y = (rows.double() - rows.double().mean(dim=0) for rows in (x, y))
    return float(F.cosine_similarity(x, y, dim=1).mean())


def _centered_gram(rows: Tensor) -> tuple[Tensor, bool]:
    """The Gram matrix (N, N) of centred rows, and whether they vary at all."""
    rows = rows.double()
    centered = rows - rows.mean(dim=0)
    varies = centered.norm() > ROUNDING * rows.norm()
    return centered @ centered.T, bool(varies)
