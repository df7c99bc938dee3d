"""The zoo as a picture: accuracy against parameters, one panel a dataset, reported hollow and measured filled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from disco_zoo.catalog import Catalog, Checkpoint
from disco_zoo.citations import METHOD_TITLES
from disco_zoo.errors import BadData
from disco_zoo.plots import COLOURS, drawing

METRIC, METRIC_TITLE = "linear_top1", "linear probe, top-1 (%)"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
TICKS = (2, 4, 8, 16, 32, 64)
GREY = "#555555"
UNVERIFIED = "reported, unverified"


def draw_zoo(rows: Sequence[Checkpoint], catalog: Catalog, path: str | Path) -> None:
    """Draw each checkpoint that has a linear figure; its test data are those it was trained on.

    Protocols differ between papers, and unverified figures are drawn faintly: the picture shows where a network lies,
    `disco-zoo show NAME` says what a figure rests on.

    Args:
        path: a .png or .svg to write.

    Raises:
        BadData: none of the rows has a figure.
        MissingExtra: matplotlib is not installed.
    """
    drawn = [row for row in rows if _reported(row) is not None or row.figure("student", METRIC) is not None]
    if not drawn:
        raise BadData("none of these models has a linear figure to draw. Leave out a filter")
    datasets = list(dict.fromkeys(row.data for row in drawn))
    methods = sorted({row.method for row in drawn})
    shapes = sorted({row.architecture for row in drawn}, key=lambda name: catalog.architectures[name].params_millions)
    with drawing(1.2 + 4.6 * len(datasets), 4.6 + 0.2 * len(shapes) / 3, "Students of the zoo", path) as figure:
        axes = figure.subplots(1, len(datasets), squeeze=False, sharex=True).flatten()
        for axis, data in zip(axes, datasets, strict=True):
            for row in drawn:
                if row.data == data:
                    _point(axis, row, catalog, methods, shapes)
            axis.set(title=catalog.datasets[data].title, xlabel="parameters (millions)", ylabel=METRIC_TITLE)
            axis.set_xscale("log")
            axis.set_xticks(TICKS, [str(tick) for tick in TICKS])
            axis.minorticks_off()
            axis.grid(alpha=0.3)
            axis.margins(0.12)
        figure.legend(handles=_legend(catalog, methods, shapes), loc="outside lower center", frameon=False, ncols=4)


def _reported(row: Checkpoint) -> Any:
    return next((figure for figure in row.reported if figure.metric == METRIC), None)


def _point(axis: Any, row: Checkpoint, catalog: Catalog, methods: Sequence[str], shapes: Sequence[str]) -> None:
    """Hollow for a paper's figure, faint where it was not read at its source; filled for ours, with its spread."""
    x = catalog.architectures[row.architecture].params_millions
    style = {"marker": MARKERS[shapes.index(row.architecture) % len(MARKERS)], "linestyle": "none", "markersize": 7}
    colour = COLOURS[methods.index(row.method) % len(COLOURS)]
    reported, measured = _reported(row), row.figure("student", METRIC)
    if reported is not None:
        faint = 1.0 if reported.verified else 0.4
        axis.plot([x], [reported.value], markerfacecolor="none", markeredgecolor=colour, alpha=faint, **style)
    if measured is not None:
        axis.errorbar([x], [measured.mean], yerr=measured.std or 0.0, color=colour, capsize=2, **style)


def _legend(catalog: Catalog, methods: Sequence[str], shapes: Sequence[str]) -> list[Any]:
    from matplotlib.lines import Line2D

    entries = [
        Line2D([], [], linestyle="none", marker="o", color=COLOURS[place % len(COLOURS)], label=METHOD_TITLES[method])
        for place, method in enumerate(methods)
    ]
    entries += [
        Line2D([], [], linestyle="none", marker=MARKERS[place % len(MARKERS)], markerfacecolor="none", color=GREY,
               label=catalog.architectures[name].paper_name)
        for place, name in enumerate(shapes)
    ]  # fmt: skip
    for label, fill, alpha in (("measured here", GREY, 1.0), ("reported", "none", 1.0), (UNVERIFIED, "none", 0.4)):
        style: dict[str, Any] = {"markerfacecolor": fill, "color": GREY, "alpha": alpha}
        entries.append(Line2D([], [], linestyle="none", marker="o", label=label, **style))
    return entries
