"""A comparison as a page of Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from disco_zoo.compare.comparison import KNN, LINEAR, Comparison, Row
from disco_zoo.compare.picture import draw_comparison
from disco_zoo.core.files import write_whole

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
    deviation = row.deviation(metric)
    return f"{row.mean(metric):.1f}" if deviation is None else f"{row.mean(metric):.1f} ± {deviation:.1f}"


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
