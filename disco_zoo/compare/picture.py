"""A comparison as a picture: accuracy, speed and memory of each method side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from disco_zoo.compare.comparison import KNN, LINEAR, Comparison, Row
from disco_zoo.compare.figures import PIXELS
from disco_zoo.plotting.style import COLORS, drawing


def draw_comparison(comparison: Comparison, path: str | Path) -> None:
    """Draw one line a method, best kNN on top; without timings the panel of speed is left out.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    rows, timed = comparison.ranked()[::-1], comparison.timed
    counted = all(row.peak_memory_mib is not None for row in rows)
    budget, data = comparison.budget, comparison.data
    seeds = f"{len(comparison.seeds)} seeds" if len(comparison.seeds) > 1 else "one seed"
    title = (
        f"{budget['student']} on {data['train_images']:,} images of {data['name']}: {budget['steps']} steps of "
        f"{budget['batch_size']}, {seeds}"
    )
    widths = [3.0, *[1.3] * (timed + counted)]
    with drawing(2.6 + 1.9 * sum(widths), 1.6 + 0.3 * len(rows), title, path) as figure:
        axes = figure.subplots(1, len(widths), sharey=True, squeeze=False, width_ratios=widths).flatten()
        _accuracy(axes[0], rows, comparison)
        if timed:
            _bars(axes[1], [row.speed.images_per_s for row in rows if row.speed], "images per second", COLORS[4])
        if counted:
            _bars(axes[-1], [row.peak_memory_mib or 0.0 for row in rows], "peak memory (MiB)", COLORS[8])
        axes[0].set_yticks(range(len(rows)), [_name(row) for row in rows])
        figure.legend(loc="outside lower left", frameon=False, ncols=4)


def _accuracy(axis: Any, rows: list[Row], comparison: Comparison) -> None:
    """kNN and linear with their spread over seeds, between the start and the teacher at the size it teaches at."""
    for metric, title, color, marker, shift in (
        (KNN, "kNN, k = 20", COLORS[0], "o", 0.12),
        (LINEAR, "linear", COLORS[3], "D", -0.12),
    ):
        axis.errorbar(
            [row.mean(metric) for row in rows],
            [place + shift for place in range(len(rows))],
            xerr=[row.deviation(metric) or 0.0 for row in rows],
            linestyle="none",
            marker=marker,
            markersize=5,
            color=color,
            capsize=2,
            label=title,
        )
    teachers = [title for title in comparison.beside if title not in ("untrained start", PIXELS)]
    lines = {"untrained start": ":", **dict.fromkeys(teachers[-1:], "--")}
    if PIXELS in comparison.beside:
        lines[PIXELS] = "-."
    for title, style in lines.items():
        axis.axvline(
            comparison.beside[title][KNN], color=COLORS[6], linestyle=style, linewidth=1, label=f"kNN, {title}"
        )
    axis.set(xlabel="top-1 accuracy (%)")
    axis.grid(axis="x", alpha=0.3)


def _bars(axis: Any, values: list[float], label: str, color: str) -> None:
    axis.barh(range(len(values)), values, height=0.55, color=color)
    for place, value in enumerate(values):
        axis.text(value, place, f" {value:.0f}", va="center", ha="left", fontsize=9)
    axis.set(xlabel=label, xlim=(0, 1.22 * max(values)))
    axis.grid(axis="x", alpha=0.3)


def _name(row: Row) -> str:
    return row.label if row.teacher else f"{row.label} (no teacher)"
