"""Figures as PNG or SVG: how they are drawn, and the curves of a training.

Drawn through matplotlib's object interface: no window, no global state. The files carry no date and do not
depend on the user's matplotlib settings, so the same input gives the same bytes.
"""

from __future__ import annotations

import contextlib
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from disco_zoo.core.files import require_folder, write_whole
from disco_zoo.errors import BadData, CannotWrite, require

# Sizes in points; nothing is smaller than 9.
STYLE = {
    "font.size": 10,
    "axes.titlesize": 11,
    "figure.titlesize": 12,
    "legend.fontsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "savefig.dpi": 120,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "disco-zoo",
    "svg.fonttype": "none",
    "text.parse_math": False,
}
# Okabe and Ito's colour-blind-safe set, its faint yellow darkened, then grey and two dark tones.
COLORS = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#d55e00",
    "#56b4e9",
    "#cc79a7",
    "#000000",
    "#b8a900",
    "#8a8a8a",
    "#7a3b10",
)
SUFFIXES = (".png", ".svg")
NOT_DRAWN = ("step", "epoch")
RANK, AGREEMENT = "effective rank", "agreement with the teacher"


def plot_curves(metrics: Sequence[Mapping[str, Any]], path: str | Path, title: str) -> None:
    """Draw each metric over the steps: one panel for losses, accuracies, ranks; most others have one each.

    Args:
        metrics: records with `step` and numbers such as `loss`, `lr`, `images_per_s`, `knn20_top1`; a record
            need not have them all.
        path: the .png or .svg to write.
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
                    color=COLORS[number % len(COLORS)],
                    linestyle=("-", "--", ":", "-.")[number % 4],
                    linewidth=1.4,
                    marker="o" if len(points) <= 30 else None,
                    markersize=4,
                    label=_series_name(key),
                )
            axis.set(xlabel="step", ylabel=label)
            axis.grid(alpha=0.3)
            axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
            axis.ticklabel_format(style="sci", scilimits=(-3, 5), axis="y")
            if len(keys) > 1 or _series_name(keys[0]) != label:
                axis.legend(frameon=False)
        for axis in axes[len(panels) :]:
            axis.set_visible(False)


# Keys that share a panel, by the label of its axis.
_SHARED_AXES = {
    r"\w+_top1": "top-1 accuracy (%)",
    r"\w+_top5": "top-5 accuracy (%)",
    r"\w+_ap\d*": "average precision (%)",
    r"(student|embedding|teacher)_rank": RANK,
    "cka|cosine": AGREEMENT,
}


def _panels(metrics: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Axis label -> keys drawn on it, in the order in which they first appear."""
    panels: dict[str, list[str]] = {}
    for row in metrics:
        for key, value in row.items():
            if "step" not in row or key in NOT_DRAWN or key.endswith("_rank_bound") or not _is_number(value):
                continue
            keys = panels.setdefault(_axis_label(key), [])
            if key not in keys:
                keys.append(key)
    # These are known before the first step.
    return dict(sorted(panels.items(), key=lambda panel: panel[0] in (RANK, AGREEMENT)))


def _axis_label(key: str) -> str:
    if key.startswith("loss") or key.endswith("_loss"):
        return "loss"
    return next((label for pattern, label in _SHARED_AXES.items() if re.fullmatch(pattern, key)), _own_label(key))


def _own_label(key: str) -> str:
    names = {"lr": "learning rate", "images_per_s": "images per second", "cka": "CKA"}
    return names.get(key, key.replace("_", " "))


def _series_name(key: str) -> str:
    """The label of a key: `knn20_top1` is "kNN, k = 20", `box_ap50` is "box AP50"."""
    knn = re.fullmatch(r"knn(\d+)_top[15]", key)
    if knn:
        return f"kNN, k = {knn[1]}"
    precision = re.fullmatch(r"(\w+)_ap(\d*)", key)
    if precision:
        return f"{precision[1].replace('_', ' ')} AP{precision[2]}"
    return _own_label(key if key == "loss" else re.sub(r"_(top[15]|rank)$", "", key))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


@contextlib.contextmanager
def drawing(width: float, height: float, title: str, path: str | Path, about: str | None = None) -> Iterator[Any]:
    """A figure of `width` × `height` inches with a title, written to `path` at the end: as SVG or, by default, PNG.

    `about` goes into the file as its description.
    """
    require("matplotlib", "train")
    style = require("matplotlib.style", "train")
    svg = Path(path).suffix.lower() == ".svg"
    backend = require(f"matplotlib.backends.backend_{'svg' if svg else 'agg'}", "train")
    with style.context(["default", STYLE]):
        figure = require("matplotlib.figure", "train").Figure(figsize=(width, height), layout="constrained")
        canvas = backend.FigureCanvasSVG(figure) if svg else backend.FigureCanvasAgg(figure)
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08)
        figure.suptitle("\n".join(textwrap.fill(line, round(10 * width)) for line in title.splitlines()))
        yield figure
        # Neither a date nor a version in the file: the same input gives the same bytes.
        nameless: dict[str, str | None] = {"Date": None, "Creator": None} if svg else {"Software": None}
        nameless |= {} if about is None else {"Description": about}
        kind = "svg" if svg else "png"
        write_whole(Path(path), lambda partial: canvas.print_figure(str(partial), format=kind, metadata=nameless))


def require_picture(path: Path) -> None:
    """Find a picture that could not be written before the work that it shows; its folder is made.

    Raises:
        BadData: neither `.png` nor `.svg`.
        CannotWrite: no permission, or a folder of this name.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise BadData(f"{path} must end in .png or .svg")
    if path.is_dir():
        raise CannotWrite(f"{path} is a folder. Choose another name")
    require_folder(path.parent)
