"""A map of an embedding: one point per image, colored by class, as PNG and SVG or as an HTML page."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from disco_zoo.core.console import console
from disco_zoo.core.files import write_out
from disco_zoo.embedding.embedding_file import EmbeddingFile
from disco_zoo.embedding.map_page import map_page
from disco_zoo.embedding.query import Pictures
from disco_zoo.errors import counted
from disco_zoo.plotting.embedding_map import Choice, Method, add_class_legend, choose_points, project_by, scatter
from disco_zoo.plotting.style import drawing


@dataclass(frozen=True)
class Map:
    """A drawn map: its projection and its files."""

    png: Path
    svg: Path
    method: str
    choice: Choice


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
    choice, points, kind, heading = _projected(file, method, max_points, title)
    png, svg = out.with_suffix(".png"), out.with_suffix(".svg")
    for path in (png, svg):
        with drawing(8.2 if choice.classes else 6.6, 6.4, f"{heading}\n{kind} of {choice}", path) as figure:
            scatter(figure.subplots(), points, choice, kind)
            add_class_legend(figure, choice, file.facts.class_names)
    return Map(png, svg, kind, choice)


@dataclass(frozen=True)
class MapPage:
    """A page that was written; `missing` images had no picture to show."""

    page: Path
    method: str
    choice: Choice
    missing: int


def write_map_page(
    file: EmbeddingFile,
    out: Path,
    *,
    method: Method,
    max_points: int,
    title: str | None = None,
    images: str | None = None,
) -> MapPage:
    """Write the map as one HTML page with a thumbnail of each image.

    Args:
        out, max_points, title: as for `draw_map`; `out` is the page.
        images: where the embedded images are now; None for where they were.

    Raises:
        BadData: fewer than three images, or images that are gone or others.
        CannotWrite: no room or no permission.
        MissingExtra: the method's package is missing.
    """
    pictures = Pictures(file, images)
    pictures.check()
    choice, points, kind, heading = _projected(file, method, max_points, title)
    text, missing = map_page(file, points, kind, choice, heading, pictures.open)
    write_out(out, lambda partial: partial.write_text(text, encoding="utf-8"))
    return MapPage(out, kind, choice, missing)


def _projected(
    file: EmbeddingFile, method: Method, max_points: int, title: str | None
) -> tuple[Choice, Tensor, str, str]:
    """The rows chosen, their points (M, 2), the projection's name, and what stands above the map."""
    labels = None if file.labels is None else torch.from_numpy(file.labels.copy())
    choice = choose_points(labels, len(file), max_points)
    console.print(f"projecting {counted(len(choice.indices), 'image')} ...")
    points, kind = project_by(torch.from_numpy(file.rows(choice.indices.tolist())), method)
    if method == "auto" and kind != "UMAP" and importlib.util.find_spec("umap") is None:
        console.print(f'by {kind}: UMAP is not installed. Type: pip install "disco-zoo[map]"', soft_wrap=True)
    heading = title if title is not None else f"{file.facts.model} on {Path(file.facts.data or 'images').name}"
    return choice, points, kind, heading
