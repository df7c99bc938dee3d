"""Figures of a run folder: training curves and maps of the embedding, as PNG.

Drawn through matplotlib's object interface: no window, no global state. The files carry no date and do not
depend on the user's matplotlib settings, so the same input gives the same bytes.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from disco_zoo.errors import BadData, require
from disco_zoo.randomness import stream_generator
from disco_zoo.threads import one_thread

# Sizes in points; nothing is smaller than 9.
STYLE = {"font.size": 10, "axes.titlesize": 11, "figure.titlesize": 12, "legend.fontsize": 10,
         "xtick.labelsize": 9, "ytick.labelsize": 9, "savefig.dpi": 120, "axes.spines.top": False,
         "axes.spines.right": False}  # fmt: skip
# Okabe and Ito's colour-blind-safe set, its faint yellow darkened, then grey and two dark tones.
COLOURS = (
    "#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9",
    "#cc79a7", "#000000", "#b8a900", "#8a8a8a", "#7a3b10",
)  # fmt: skip
MARKERS = ("o", "^")
MAX_CLASSES = len(COLOURS) * len(MARKERS)
NOT_DRAWN = ("step", "epoch")


def plot_curves(metrics: Sequence[Mapping[str, Any]], path: str | Path, title: str) -> None:
    """Draw each metric over the steps: losses in one panel, accuracies in one, each other one in its own.

    Args:
        metrics: records with `step` and numbers such as `loss`, `lr`, `images_per_s`, `knn20_top1`; a record
            need not have them all.
        path: the PNG to write.
        title: above the figure.

    Raises:
        BadData: no record has a step and a number.
        MissingExtra: matplotlib is not installed.
    """
    panels = _panels(metrics)
    if not panels:
        raise BadData("There are no metrics to draw: no record has a step and a number.")
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    with drawing(4.8 * columns, 0.6 + 2.7 * rows, title, path) as figure:
        axes = figure.subplots(rows, columns, squeeze=False).flatten()
        for axis, (label, keys) in zip(axes, panels.items(), strict=False):
            for number, key in enumerate(keys):
                points = [(row["step"], row[key]) for row in metrics if _is_number(row.get(key))]
                axis.plot(
                    *zip(*points, strict=True),
                    color=COLOURS[number % len(COLOURS)],
                    linestyle=("-", "--", ":", "-.")[number % 4],
                    linewidth=1.4,
                    marker="o" if len(points) <= 30 else None,
                    markersize=4,
                    label=_series_name(key),
                )
            axis.set(xlabel="step", ylabel=label)
            axis.grid(alpha=0.3)
            axis.ticklabel_format(style="sci", scilimits=(-3, 5), axis="y")
            if len(keys) > 1 or _series_name(keys[0]) != label:
                axis.legend(frameon=False)
        for axis in axes[len(panels) :]:
            axis.set_visible(False)


def plot_embedding_map(
    features: Tensor,
    labels: Tensor | None,
    class_names: Sequence[str] | None,
    path: str | Path,
    title: str,
    *,
    max_points: int = 2000,
) -> None:
    """Draw features (N, D) as a map, one colour a class; arguments as for `plot_embedding_pair`."""
    _draw_maps({"": features}, labels, class_names, path, title, max_points)


def plot_embedding_pair(
    start: Tensor,
    student: Tensor,
    labels: Tensor | None,
    class_names: Sequence[str] | None,
    path: str | Path,
    title: str,
    *,
    panel_titles: tuple[str, str] = ("start", "student"),
    max_points: int = 2000,
) -> None:
    """Draw the features of the same images before and after training, side by side.

    The projection is t-SNE where scikit-learn is installed, else the first two principal components; both see
    L2-normalised features, as kNN does. The title says which it was, and of how many images and classes.

    Args:
        start, student: features (N, D) and (N, D') of the same N images.
        labels: int64 (N,), or None for one colour.
        class_names: for the legend; class numbers without them.
        path: the PNG to write.
        title: above the figure.
        panel_titles: above each map.
        max_points: images drawn, a fixed random choice; of many classes only some are drawn.

    Raises:
        BadData: fewer than three images, or features and labels of different numbers.
        MissingExtra: matplotlib is not installed.
    """
    _draw_maps(dict(zip(panel_titles, (start, student), strict=True)), labels, class_names, path, title, max_points)


def project(features: Tensor) -> tuple[Tensor, str]:
    """Map features (N, D) to (N, 2): t-SNE where scikit-learn is installed, else PCA; and the name of it."""
    with one_thread():
        components = _principal_components(F.normalize(features.double()), 50).float()
        if len(features) < 10 or importlib.util.find_spec("sklearn") is None:
            return components[:, :2], "PCA"
        manifold = require("sklearn.manifold", "test")
        tsne = manifold.TSNE(init="pca", perplexity=min(30.0, (len(features) - 1) / 3), random_state=0)
        return torch.from_numpy(tsne.fit_transform(components.numpy())), "t-SNE"


def _principal_components(features: Tensor, number: int) -> Tensor:
    """Scores (N, number) of centred features (N, D); zeros where there are fewer components.

    By exact decomposition: `torch.pca_lowrank` draws from the global generator. The sign of a component is
    arbitrary; its largest score is made positive.
    """
    left, scale, _ = torch.linalg.svd(features - features.mean(dim=0), full_matrices=False)
    scores = (left * scale)[:, :number]
    largest = scores.gather(0, scores.abs().argmax(dim=0, keepdim=True))
    scores = scores * torch.where(largest < 0, -1.0, 1.0)
    return F.pad(scores, (0, number - scores.shape[1]))


def _draw_maps(
    maps: Mapping[str, Tensor],
    labels: Tensor | None,
    class_names: Sequence[str] | None,
    path: str | Path,
    title: str,
    max_points: int,
) -> None:
    total = len(next(iter(maps.values())))
    if total < 3 or any(len(features) != total for features in maps.values()):
        raise BadData(f"An embedding map needs the same images in each panel, three at least; got {total}.")
    if labels is not None and len(labels) != total:
        raise BadData(f"There are {total} features but {len(labels)} labels.")
    chosen, shown, total_classes = _choose_points(labels, total, max_points)
    projected = {name: project(features[chosen].cpu()) for name, features in maps.items()}
    kind = next(iter(projected.values()))[1]
    images = f"{len(chosen)} of {total} images" if len(chosen) < total else f"{total} images"
    classes = f", {len(shown)} of {total_classes} classes" if len(shown) < total_classes else ""
    heading = f"{title}\n{kind} of {images}{classes}"
    with drawing(5.2 * len(maps) + (1.6 if shown else 0.2), 5.4, heading, path) as figure:
        axes = figure.subplots(1, len(maps), squeeze=False).flatten()
        for axis, (name, (points, _)) in zip(axes, projected.items(), strict=True):
            _scatter(axis, points, None if labels is None else labels[chosen].cpu(), shown)
            axis.set(title=name, xlabel=f"{kind} 1", ylabel=f"{kind} 2", xticks=[], yticks=[])
        if shown:
            figure.legend(
                handles=_legend_handles(shown, class_names),
                loc="outside right center",
                frameon=False,
                title="class",
            )


def _choose_points(labels: Tensor | None, total: int, max_points: int) -> tuple[Tensor, list[int], int]:
    """Indices to draw in random order, the classes among them, and how many classes there are in all."""
    order = torch.randperm(total, generator=stream_generator("embedding_map", 0))
    if labels is None:
        return order[:max_points], [], 0
    classes: list[int] = labels.unique().tolist()
    # Colours for more classes cannot be told apart: evenly spaced ones stand for all.
    spread = torch.linspace(0, len(classes) - 1, min(len(classes), MAX_CLASSES)).round().long().tolist()
    shown = [classes[position] for position in spread]
    kept = order[torch.isin(labels.cpu()[order], torch.tensor(shown))]
    return kept[:max_points], shown, len(classes)


def _scatter(axis: Any, points: Tensor, labels: Tensor | None, shown: Sequence[int]) -> None:
    """Points (N, 2) in their random order, so that no class lies above the others."""
    size = min(40.0, max(10.0, 20_000 / len(points)))
    if labels is None:
        axis.scatter(points[:, 0].tolist(), points[:, 1].tolist(), s=size, color=COLOURS[0], alpha=0.7, linewidths=0)
        return
    position = torch.searchsorted(torch.tensor(shown), labels)
    for number, marker in enumerate(MARKERS):
        rows = position // len(COLOURS) == number
        colours = [COLOURS[place % len(COLOURS)] for place in position[rows].tolist()]
        axis.scatter(
            points[rows, 0].tolist(), points[rows, 1].tolist(),
            s=size, c=colours or None, marker=marker, alpha=0.8, linewidths=0,
        )  # fmt: skip


def _legend_handles(shown: Sequence[int], class_names: Sequence[str] | None) -> list[Any]:
    lines = require("matplotlib.lines", "train")
    return [
        lines.Line2D(
            [], [], linestyle="none", markersize=7,
            marker=MARKERS[place // len(COLOURS)],
            color=COLOURS[place % len(COLOURS)],
            label=textwrap.shorten(class_names[label] if class_names else str(label), 22, placeholder="…"),
        )
        for place, label in enumerate(shown)
    ]  # fmt: skip


def _panels(metrics: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Axis label -> keys drawn on it, in the order in which they first appear."""
    panels: dict[str, list[str]] = {}
    for row in metrics:
        for key, value in row.items():
            if "step" not in row or key in NOT_DRAWN or not _is_number(value):
                continue
            keys = panels.setdefault(_axis_label(key), [])
            if key not in keys:
                keys.append(key)
    return panels


def _axis_label(key: str) -> str:
    if key.startswith("loss") or key.endswith("_loss"):
        return "loss"
    if key.endswith("_top1"):
        return "top-1 accuracy (%)"
    return {"lr": "learning rate", "images_per_s": "images per second"}.get(key, key.replace("_", " "))


def _series_name(key: str) -> str:
    """A key as people write it: `knn20_top1` is "kNN, k = 20"."""
    knn = re.fullmatch(r"knn(\d+)_top1", key)
    if knn:
        return f"kNN, k = {knn[1]}"
    if key == "loss" or _axis_label(key) not in ("loss", "top-1 accuracy (%)"):
        return _axis_label(key)
    return key.removesuffix("_top1").replace("_", " ")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


@contextlib.contextmanager
def drawing(width: float, height: float, title: str, path: str | Path) -> Iterator[Any]:
    """A figure of `width` × `height` inches with a title, written to `path` as PNG at the end."""
    require("matplotlib", "train")
    style = require("matplotlib.style", "train")
    backend = require("matplotlib.backends.backend_agg", "train")
    with style.context(["default", STYLE]):
        figure = require("matplotlib.figure", "train").Figure(figsize=(width, height), layout="constrained")
        canvas = backend.FigureCanvasAgg(figure)
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08)
        figure.suptitle("\n".join(textwrap.fill(line, round(10 * width)) for line in title.splitlines()))
        yield figure
        canvas.print_figure(str(path), format="png", metadata={"Software": None})
