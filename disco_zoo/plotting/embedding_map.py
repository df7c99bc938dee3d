"""Scatter plots of features, projected by principal components, t-SNE or UMAP: a point an image, a color a class."""

from __future__ import annotations

import importlib.util
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from disco_zoo.core.process import one_thread
from disco_zoo.core.random_streams import stream_generator
from disco_zoo.errors import BadData, require
from disco_zoo.plotting.style import COLORS, drawing

Method = Literal["auto", "pca", "tsne", "umap"]
MINIMUM_POINTS = 3
UMAP_NEIGHBORS = 15
COMPONENTS = 50  # principal components that t-SNE and UMAP look at


def check_method(method: Method) -> None:
    """Find a missing package before the features are read.

    Raises:
        MissingExtra: what the method needs is not installed.
    """
    if method == "umap" and importlib.util.find_spec("umap") is None:
        require("umap", "map")
    if method == "tsne" and importlib.util.find_spec("sklearn") is None:
        require("sklearn", "train")


def project_by(features: Tensor, method: Method) -> tuple[Tensor, str]:
    """Map features (N, D), L2-normalised first, to (N, 2), and say by what.

    Args:
        method: "auto" is UMAP where it is installed, else t-SNE, else PCA; few points make it PCA.

    Raises:
        BadData: fewer than three features.
        MissingExtra: the method's package is not installed.
    """
    if len(features) < MINIMUM_POINTS:
        raise BadData(f"a map needs at least {MINIMUM_POINTS} images, there are {len(features)}")
    if method == "auto" and importlib.util.find_spec("umap") is None:
        return project(features)
    if method == "tsne":
        check_method(method)
        return project(features)
    with one_thread():
        components = principal_components(F.normalize(features.double()), COMPONENTS).float()
    if method == "pca" or len(features) <= UMAP_NEIGHBORS:
        return components[:, :2], "PCA"
    return _umap(components), "UMAP"


def _umap(components: Tensor) -> Tensor:
    umap = require("umap", "map")
    with one_thread():  # also what makes it the same every time
        found = umap.UMAP(n_neighbors=UMAP_NEIGHBORS, metric="euclidean", random_state=0, n_jobs=1)
        return torch.from_numpy(found.fit_transform(components.numpy()))


def project(features: Tensor) -> tuple[Tensor, str]:
    """Map features (N, D) to (N, 2): t-SNE where scikit-learn is installed, else PCA; and the name of it."""
    with one_thread():
        components = principal_components(F.normalize(features.double()), COMPONENTS).float()
        if len(features) < 10 or importlib.util.find_spec("sklearn") is None:
            return components[:, :2], "PCA"
        manifold = require("sklearn.manifold", "test")
        tsne = manifold.TSNE(init="pca", perplexity=min(30.0, (len(features) - 1) / 3), random_state=0)
        return torch.from_numpy(tsne.fit_transform(components.numpy())), "t-SNE"


def principal_components(features: Tensor, number: int) -> Tensor:
    """Scores (N, number) of centred features (N, D); zeros where there are fewer components.

    By exact decomposition: `torch.pca_lowrank` draws from the global generator. The sign of a component is
    arbitrary; its largest score is made positive.
    """
    left, scale, _ = torch.linalg.svd(features - features.mean(dim=0), full_matrices=False)
    scores = (left * scale)[:, :number]
    largest = scores.gather(0, scores.abs().argmax(dim=0, keepdim=True))
    scores = scores * torch.where(largest < 0, -1.0, 1.0)
    return F.pad(scores, (0, number - scores.shape[1]))


MARKERS = ("o", "^")
MAX_CLASSES = len(COLORS) * len(MARKERS)


def plot_embedding_maps(
    maps: Mapping[str, Tensor],
    labels: Tensor | None,
    class_names: Sequence[str] | None,
    path: str | Path,
    title: str,
    *,
    max_points: int = 2000,
) -> None:
    """Draw features of the same images as maps side by side, one colour a class.

    The projection is t-SNE where scikit-learn is installed, else the first two principal components; both see
    L2-normalised features, as kNN does. The title says which it was, and of how many images and classes.

    Args:
        maps: what stands above each map -> features (N, D) of the same N images; D may differ.
        labels: int64 (N,), or None for one colour.
        class_names: for the legend; class numbers without them.
        path: the .png or .svg to write.
        title: above the figure.
        max_points: images drawn, a fixed random choice; of many classes only some are drawn.

    Raises:
        BadData: fewer than three images, or features and labels of different numbers.
        MissingExtra: matplotlib is not installed.
    """
    total = len(next(iter(maps.values())))
    if total < 3 or any(len(features) != total for features in maps.values()):
        raise BadData(f"An embedding map needs the same images in each panel, three at least; got {total}.")
    if labels is not None and len(labels) != total:
        raise BadData(f"There are {total} features but {len(labels)} labels.")
    choice = choose_points(labels, total, max_points)
    projected = {name: project(features[choice.indices].cpu()) for name, features in maps.items()}
    kind = next(iter(projected.values()))[1]
    heading = f"{title}\n{kind} of {choice}"
    with drawing(5.2 * len(maps) + (1.6 if choice.classes else 0.2), 5.4, heading, path) as figure:
        axes = figure.subplots(1, len(maps), squeeze=False).flatten()
        for axis, (name, (points, _)) in zip(axes, projected.items(), strict=True):
            scatter(axis, points, choice, kind)
            axis.set(title=name)
        add_class_legend(figure, choice, class_names)


@dataclass(frozen=True)
class Choice:
    """The images on a map.

    Attributes:
        indices: int64 (M,), in random order; `labels` int64 (M,) are theirs, or None.
        classes: the labels drawn; empty without labels.
        num_images, num_classes: of all.
    """

    indices: Tensor
    labels: Tensor | None
    classes: list[int]
    num_images: int
    num_classes: int

    def __str__(self) -> str:
        drawn, total = len(self.indices), self.num_images
        images = f"{drawn} of {total} images" if drawn < total else f"{total} images"
        some = f", {len(self.classes)} of {self.num_classes} classes" if len(self.classes) < self.num_classes else ""
        return images + some


def choose_points(labels: Tensor | None, total: int, max_points: int) -> Choice:
    """Choose at most `max_points` of `total` images at random, the same ones each time; of many classes some."""
    order = torch.randperm(total, generator=stream_generator("embedding_map", 0))
    if labels is None:
        return Choice(order[:max_points], None, [], total, 0)
    labels = labels.cpu()
    classes: list[int] = labels.unique().tolist()
    # Colours for more classes cannot be told apart: evenly spaced ones stand for all.
    spread = torch.linspace(0, len(classes) - 1, min(len(classes), MAX_CLASSES)).round().long().tolist()
    shown = [classes[position] for position in spread]
    kept = order[torch.isin(labels[order], torch.tensor(shown))][:max_points]
    return Choice(kept, labels[kept], shown, total, len(classes))


def scatter(axis: Any, points: Tensor, choice: Choice, kind: str) -> None:
    """Points (M, 2), made by `kind`, in their random order, so that no class lies above the others."""
    axis.set(xlabel=f"{kind} 1", ylabel=f"{kind} 2", xticks=[], yticks=[])
    size = min(40.0, max(10.0, 20_000 / len(points)))
    if choice.labels is None:
        axis.scatter(points[:, 0].tolist(), points[:, 1].tolist(), s=size, color=COLORS[0], alpha=0.7, linewidths=0)
        return
    position = torch.searchsorted(torch.tensor(choice.classes), choice.labels)
    for number, marker in enumerate(MARKERS):
        rows = position // len(COLORS) == number
        colors = [COLORS[place % len(COLORS)] for place in position[rows].tolist()]
        axis.scatter(
            points[rows, 0].tolist(),
            points[rows, 1].tolist(),
            s=size,
            c=colors or None,
            marker=marker,
            alpha=0.8,
            linewidths=0,
        )


def class_text(label: int, class_names: Sequence[str] | None) -> str:
    """A class in a legend, by name where it is known."""
    if label < 0:
        return "no label"
    return class_names[label] if class_names and label < len(class_names) else str(label)


def add_class_legend(figure: Any, choice: Choice, class_names: Sequence[str] | None) -> None:
    """Beside the maps; nothing without classes."""
    if not choice.classes:
        return
    lines = require("matplotlib.lines", "train")
    handles = [
        lines.Line2D(
            [],
            [],
            linestyle="none",
            markersize=7,
            marker=MARKERS[place // len(COLORS)],
            color=COLORS[place % len(COLORS)],
            label=textwrap.shorten(class_text(label, class_names), 22, placeholder="…"),
        )
        for place, label in enumerate(choice.classes)
    ]
    figure.legend(handles=handles, loc="outside right center", frameon=False, title="class")
