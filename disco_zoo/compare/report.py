"""A comparison as a page of Markdown, as JSON, and as a picture of accuracy, speed and memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from disco_zoo.compare.comparison import KNN, LINEAR, Comparison, Row
from disco_zoo.compare.figures import PIXELS
from disco_zoo.core.files import write_whole
from disco_zoo.plotting.style import COLORS, drawing
from disco_zoo.zoo.facts import mean_and_spread

PICTURE = "comparison.png"


def write_comparison(comparison: Comparison, folder: Path) -> None:
    """Write comparison.json, comparison.md and comparison.png into `folder`, which exists."""
    draw_comparison(comparison, folder / PICTURE)
    text = json.dumps(comparison.as_json(), indent=2, ensure_ascii=False) + "\n"
    write_whole(folder / "comparison.json", lambda partial: partial.write_text(text, encoding="utf-8"))
    page = comparison_page(comparison)
    write_whole(folder / "comparison.md", lambda partial: partial.write_text(page, encoding="utf-8"))


def comparison_page(comparison: Comparison) -> str:
    """Everything a reader needs to judge the table and to make it again."""
    budget, data = comparison.budget, comparison.data
    hardware = comparison.hardware
    devices = ", ".join(hardware["accelerators"]) or f"{hardware['cpu_cores']} CPU cores ({hardware['cpu']})"
    seeds = ", ".join(map(str, comparison.seeds))
    lines = [
        f"# {comparison.title}",
        "",
        f"Made by `{comparison.command}`, {comparison.measured[:10]}, on {devices}, "
        f"torch {comparison.versions['torch']}.",
        "",
        f"- One budget: {budget['student']} at {budget['image_size']} px from the same {budget['init']} start, "
        f"{budget['steps']} steps of {budget['batch_size']} images"
        f"{' (shortened, a look)' if budget['shortened'] else ''}, {budget['optimizer']}"
        f"{', hidden layers of all heads equally wide' if budget.get('same_head') else ''}.",
        f"- Data: {data['name']}, {data['train_images']} training and {data['test_images']} test images; labels are "
        "used to measure only.",
        f"- Seeds: {seeds}.",
        f"- Figures: top-1 in percent, best kNN first. {comparison.protocol}.",
        "",
        *comparison_table(comparison),
        "",
        f"![kNN, linear, speed and memory of each method]({PICTURE})",
        "",
        *_notes(comparison),
        "",
    ]
    return "\n".join(lines)


def comparison_table(comparison: Comparison) -> list[str]:
    """Lines of a Markdown table: methods by kNN, then what stands beside them."""
    heads = ["method", "teacher", "views", "head", "kNN, k = 20", "linear", f"kNN − {comparison.baseline}"]
    timed = comparison.timed
    heads += ["images/s", f"× {comparison.baseline}"] if timed else []
    heads += ["peak MiB"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * 3 + "---:|" * (len(heads) - 3)]
    for row in comparison.ranked():
        cells = [row.label, "yes" if row.teacher else "no", row.views, head_of(row)]
        cells += [with_spread(row, KNN), with_spread(row, LINEAR)]
        cells.append("" if row.label == comparison.baseline else _difference(row.differences[KNN]))
        if timed and row.speed is not None:
            cells += [f"{row.speed.images_per_s:.0f}", f"{row.speed.ratio:.2f}"]
        cells.append("" if row.peak_memory_mib is None else f"{row.peak_memory_mib:.0f}")
        lines.append("| " + " | ".join(cells) + " |")
    for title, figures in comparison.beside.items():
        linear = f"{figures[LINEAR]:.1f}" if LINEAR in figures else ""
        cells = [f"*{title}*", "", "", "", f"{figures[KNN]:.1f}", linear]
        lines.append("| " + " | ".join([*cells, *[""] * (len(heads) - len(cells))]) + " |")
    return lines


def head_of(row: Row) -> str:
    """Width of the hidden layer of the head that training puts on the backbone, and evaluation takes off."""
    return "none" if row.head_width is None else str(row.head_width)


def with_spread(row: Row, metric: str) -> str:
    """Mean, and standard deviation over seeds where there are several."""
    return mean_and_spread(row.mean(metric), row.deviation(metric), digits=1)


def _difference(values: Sequence[float]) -> str:
    mean = sum(values) / len(values)
    return f"{mean:+.1f}" if len(values) == 1 else f"{mean:+.1f} ({min(values):+.1f} to {max(values):+.1f})"


def _notes(comparison: Comparison) -> list[str]:
    """How to read it."""
    spread = (
        "± is the standard deviation over seeds; differences are taken seed by seed, with their range in brackets."
        if len(comparison.seeds) > 1
        else "One seed: no spread is known, so small differences say nothing."
    )
    notes = ["## How to read it", "", f"- {spread}"]
    if comparison.timed:
        notes.append(
            "- images/s: one process that draws the views and trains, fastest of a few steps, median of interleaved "
            "rounds; the ratio is the median of the rounds' own ratios. Preparation (BINGO's bags) is not in it."
        )
    notes += [
        "- peak MiB: of the whole training process (on a GPU: of its tensors), libraries and views included, about the "
        "same for all; differences are the method's.",
        "- head: width of the hidden layer of the projection head. It is the method's own choice and worth points by "
        "itself: `--same-head` gives all that have one the widest.",
        "- Equal student steps are not equal cost: methods differ in views, networks and passes a step, see images/s.",
        "- A budget this small shows how fast a method learns from its start, not where it ends. Methods tuned for "
        "hundreds of epochs (clusters, long queues, contrast without a teacher) may be behind here for that reason, "
        "and no figure here says which method is best on ImageNet.",
    ]
    return notes


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
