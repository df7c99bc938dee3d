"""The zoo as a picture: accuracy against parameters, one panel a dataset, reported hollow and measured filled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from disco_zoo.errors import BadData
from disco_zoo.plotting.style import COLORS, drawing
from disco_zoo.zoo.catalog import Catalog, Checkpoint
from disco_zoo.zoo.papers import METHOD_TITLES

METRIC, METRIC_TITLE = "linear_top1", "linear probe, top-1 (%)"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p", "h")
TICKS = (2, 4, 8, 16, 32, 64)
GRAY = "#555555"
UNVERIFIED_ALPHA = 0.4
INCHES_A_LINE = 0.215  # of the legend


def draw_zoo(rows: Sequence[Checkpoint], catalog: Catalog, path: str | Path) -> int:
    """Draw each checkpoint that has a linear figure; its test data are those it was trained on.

    Protocols differ between papers, and unverified figures are drawn faintly: the picture shows where a network lies,
    `disco-zoo show NAME` says what a figure rests on. Colours and marks are the whole catalog's, whatever is drawn.

    Args:
        path: a .png or .svg to write.

    Returns:
        How many checkpoints are drawn.

    Raises:
        BadData: none of the rows has a figure.
        MissingExtra: matplotlib is not installed.
    """
    drawn = [row for row in rows if _has_figure(row)]
    if not drawn:
        raise BadData("none of these models has a linear figure to draw. Leave out a filter")
    panels: dict[str, list[Checkpoint]] = {}
    for row in drawn:
        panels.setdefault(catalog.measured_on(row).title, []).append(row)
    style = _Style(catalog)
    legend = style.legend(drawn)
    # A panel of one or two networks needs little width.
    widths = [1.0 if len({row.architecture for row in shown}) > 2 else 0.5 for shown in panels.values()]
    height = max(4.4, 0.6 + INCHES_A_LINE * len(legend))
    with drawing(2.4 + 4.8 * sum(widths), height, "Students of the zoo", path, fingerprint(drawn, catalog)) as figure:
        axes = figure.subplots(1, len(panels), squeeze=False, width_ratios=widths).flatten()
        for axis, (title, shown) in zip(axes, panels.items(), strict=True):
            for row in shown:
                style.draw(axis, row)
            axis.set(title=title, xlabel="parameters (millions)", ylabel=METRIC_TITLE)
            _scale(axis, sorted({catalog.architectures[row.architecture].params_millions for row in shown}))
        box = figure.legend(handles=legend, loc="outside right center", frameon=False)
        for text in box.get_texts():
            if text.get_text() in HEADINGS:
                text.set(weight="bold", x=-24)
    return len(drawn)


def fingerprint(drawn: Sequence[Checkpoint], catalog: Catalog) -> str:
    """Of all that the picture shows, to tell one that is stale: it is the file's description."""
    facts = []
    for row in drawn:
        reported, measured = _reported(row), row.figure("student", METRIC)
        size = catalog.architectures[row.architecture].params_millions
        facts.append(
            [
                row.data,
                row.method,
                row.architecture,
                size,
                None if reported is None else [reported.value, reported.verified],
                None if measured is None else [measured.mean, measured.std],
            ]
        )
    return f"figures sha256 {hashlib.sha256(json.dumps(facts).encode()).hexdigest()}"


def _scale(axis: Any, sizes: Sequence[float]) -> None:
    """Parameters on a logarithmic axis, with a tick of its own where there is one network only."""
    axis.set_xscale("log")
    ticks = [tick for tick in TICKS if sizes[0] / 2 < tick < 2 * sizes[-1]]
    axis.set_xlim(sizes[0] / 1.5, 1.5 * sizes[-1])
    axis.set_xticks(
        sizes if len(sizes) == 1 else ticks, [f"{tick:g}" for tick in (sizes if len(sizes) == 1 else ticks)]
    )
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.margins(y=0.12)


def _has_figure(row: Checkpoint) -> bool:
    return _reported(row) is not None or row.figure("student", METRIC) is not None


def _reported(row: Checkpoint) -> Any:
    return next((figure for figure in row.reported if figure.metric == METRIC), None)


HEADINGS = ("method", "network", "figure")


class _Style:
    """A colour for each method and a mark for each architecture that have a figure in the catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        known = [row for row in catalog.matching(None) if _has_figure(row)]
        methods = sorted({row.method for row in known})
        shapes = sorted({row.architecture for row in known}, key=lambda name: self._size(name))
        self.colors = {method: COLORS[place % len(COLORS)] for place, method in enumerate(methods)}
        self.markers = {shape: MARKERS[place % len(MARKERS)] for place, shape in enumerate(shapes)}

    def _size(self, architecture: str) -> float:
        return self.catalog.architectures[architecture].params_millions

    def draw(self, axis: Any, row: Checkpoint) -> None:
        """Hollow for a paper's figure, faint where it was not read at its source; filled for ours, with its spread."""
        x, color = self._size(row.architecture), self.colors[row.method]
        style = {"marker": self.markers[row.architecture], "linestyle": "none", "markersize": 7}
        reported, measured = _reported(row), row.figure("student", METRIC)
        if reported is not None:
            faint = 1.0 if reported.verified else UNVERIFIED_ALPHA
            axis.plot([x], [reported.value], markerfacecolor="none", markeredgecolor=color, alpha=faint, **style)
        if measured is not None:
            axis.errorbar([x], [measured.mean], yerr=measured.std or 0.0, color=color, capsize=2, **style)

    def legend(self, drawn: Sequence[Checkpoint]) -> list[Any]:
        """Methods, architectures and kinds of figures, each below its heading."""
        methods, shapes = {row.method for row in drawn}, {row.architecture for row in drawn}
        reported = [_reported(row) for row in drawn]
        kinds = {
            "measured here": any(row.figure("student", METRIC) is not None for row in drawn),
            "reported": any(figure is not None and figure.verified for figure in reported),
            "reported, unverified": any(figure is not None and not figure.verified for figure in reported),
        }
        fills = {
            "measured here": (GRAY, 1.0),
            "reported": ("none", 1.0),
            "reported, unverified": ("none", UNVERIFIED_ALPHA),
        }
        return [
            _entry("method", "", GRAY),
            *(_entry(METHOD_TITLES[name], "o", color) for name, color in self.colors.items() if name in methods),
            _entry("network", "", GRAY),
            *(
                _entry(self.catalog.architectures[name].paper_name, marker, GRAY, "none")
                for name, marker in self.markers.items()
                if name in shapes
            ),
            _entry("figure", "", GRAY),
            *(_entry(name, "o", GRAY, *fills[name]) for name, there in kinds.items() if there),
        ]


def _entry(label: str, marker: str, color: str, fill: str | None = None, alpha: float = 1.0) -> Any:
    from matplotlib.lines import Line2D

    face = color if fill is None else fill
    return Line2D([], [], linestyle="none", marker=marker, color=color, markerfacecolor=face, alpha=alpha, label=label)
