"""A map of an embedding: every image a point, near ones alike, coloured by class; PNG and SVG."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from disco_zoo.atomic import write_out
from disco_zoo.embed.embedding_file import EmbeddingFile
from disco_zoo.embed.projection import Method, project_by
from disco_zoo.errors import require
from disco_zoo.plots import _choose_points as choose_points
from disco_zoo.plots import _legend_handles as legend_handles
from disco_zoo.plots import _scatter as scatter
from disco_zoo.plots import drawing


@dataclass(frozen=True)
class Map:
    """What was drawn, by what, and where it lies."""

    png: Path
    svg: Path
    method: str
    num_points: int
    num_images: int
    shown_classes: int
    num_classes: int


def draw_map(file: EmbeddingFile, out: Path, *, method: Method, max_points: int, title: str | None = None) -> Map:
    """Draw rows of an embedding as PNG, and as SVG beside it.

    Args:
        out: of the PNG; the SVG has its name.
        max_points: images drawn, a fixed random choice; of very many classes only some are drawn.
        title: above the map; None for the model and the images.

    Raises:
        BadData: fewer than three images.
        CannotWrite: no room or no permission.
        MissingExtra: no matplotlib, or the method's package is missing.
    """
    labels = None if file.labels is None else torch.from_numpy(file.labels.copy())
    chosen, shown, total_classes = choose_points(labels, len(file), max_points)
    points, kind = project_by(torch.from_numpy(file.rows(chosen.tolist())), method)
    images = f"{len(chosen)} of {len(file)} images" if len(chosen) < len(file) else f"{len(file)} images"
    classes = f", {len(shown)} of {total_classes} classes" if len(shown) < total_classes else ""
    names = file.facts.class_names
    heading = title if title is not None else f"{file.facts.model} on {Path(file.facts.data or 'images').name}"

    def draw(png: Path, svg: Path) -> None:
        with drawing(6.6 if not shown else 8.2, 6.4, f"{heading}\n{kind} of {images}{classes}", png) as figure:
            axis = figure.subplots()
            scatter(axis, points, None if labels is None else labels[chosen], shown)
            axis.set(xlabel=f"{kind} 1", ylabel=f"{kind} 2", xticks=[], yticks=[])
            if shown:
                handles = legend_handles(shown, names)
                figure.legend(handles=handles, loc="outside right center", frameon=False, title="class")
            # No date and no random names inside: the same map is the same file.
            with require("matplotlib", "train").rc_context({"svg.hashsalt": "disco_zoo"}):
                figure.savefig(svg, format="svg", metadata={"Date": None})

    png, svg = out.with_suffix(".png"), out.with_suffix(".svg")
    write_out(png, lambda one: write_out(svg, lambda other: draw(one, other)))
    return Map(png, svg, kind, len(chosen), len(file), len(shown), total_classes)
