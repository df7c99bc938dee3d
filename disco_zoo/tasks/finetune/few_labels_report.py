"""The table and the picture of a few-label comparison."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from disco_zoo.core.checkpoint import write_atomically
from disco_zoo.core.claimed_dir import write_json
from disco_zoo.core.console import duration
from disco_zoo.core.environment import hardware_line
from disco_zoo.plotting.style import COLORS, drawing
from disco_zoo.tasks.finetune.few_labels import PRETRAINED, RANDOM, Cell, Plan, paired_difference
from disco_zoo.tasks.finetune.run import LabeledData, shown_model

HEADER = ("images a class", "start", "top-1, %", "training a run")


def write_comparison(cells: Sequence[Cell], plan: Plan, data: LabeledData, out: Path, command: str) -> dict[str, Any]:
    """Write few_labels.json, report.md and the picture into `out`; return what the JSON holds."""
    facts = {
        "model": shown_model(plan.settings.model),
        "data": Path(data.train.name).name,
        "command": command,
        "measured_on": "test" if data.test is not None else "held-out",
        "classes": len(data.names),
        "cells": [cell.as_json() for cell in cells],
        "differences": [{"few": few, "mean": mean, "sd": sd} for few, (mean, sd) in _differences(cells).items()],
    }
    write_json(out / "few_labels.json", facts)
    figures = out / "figures"
    figures.mkdir(exist_ok=True)
    plot_few_labels(cells, len(data.names), figures / "few_labels.png", title_of(facts))
    report = _report(cells, facts, plan.seeds)
    write_atomically(out / "report.md", lambda partial: partial.write_text(report, encoding="utf-8"))
    return facts


def title_of(facts: dict[str, Any]) -> str:
    return f"{facts['model']} fine-tuned on {facts['data']} with few labels"


def table_rows(cells: Sequence[Cell]) -> list[tuple[str, ...]]:
    """The rows under `HEADER`."""
    return [
        (
            str(cell.few or "all"),
            cell.start,
            spread(cell.mean, cell.sd),
            duration(sum(cell.seconds) / len(cell.seconds)),
        )
        for cell in cells
    ]


def difference_lines(cells: Sequence[Cell]) -> list[str]:
    """Pretrained minus random in words, one line a number of labels; none where only one start was run."""
    return [
        f"{few or 'all'} images a class: pretrained minus random {'+' if mean >= 0 else ''}{spread(mean, sd)} points, "
        "paired by seed"
        for few, (mean, sd) in _differences(cells).items()
    ]


def spread(mean: float, sd: float | None) -> str:
    return f"{mean:.2f}" + ("" if sd is None else f" ± {sd:.2f}")


def plot_few_labels(cells: Sequence[Cell], num_classes: int, path: Path, title: str) -> None:
    """Draw top-1 over the images a class: the mean of each start as a line, each seed as a point."""
    fews = list(dict.fromkeys(cell.few for cell in cells))
    with drawing(5.6, 4.2, title, path) as figure:
        axis = figure.subplots()
        for number, start in enumerate(dict.fromkeys(cell.start for cell in cells)):
            mine = [cell for cell in cells if cell.start == start]
            color, places = COLORS[number], [fews.index(cell.few) for cell in mine]
            axis.plot(places, [cell.mean for cell in mine], color=color, marker="_", markersize=14, label=start)
            for place, cell in zip(places, mine, strict=True):
                axis.scatter([place] * len(cell.top1), cell.top1, s=18, color=color, alpha=0.6, linewidths=0, zorder=3)
        axis.axhline(100 / num_classes, color=COLORS[8], linestyle=":", linewidth=1.2, label="chance")
        axis.set_xticks(range(len(fews)), [str(few or "all") for few in fews])
        axis.set(xlabel="training images a class", ylabel="top-1 accuracy (%)", xlim=(-0.4, len(fews) - 0.6))
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3, axis="y")
        axis.legend(frameon=False)


def _differences(cells: Sequence[Cell]) -> dict[int | None, tuple[float, float | None]]:
    by_key = {(cell.few, cell.start): cell for cell in cells}
    fews = dict.fromkeys(cell.few for cell in cells)
    return {
        few: paired_difference(by_key[few, PRETRAINED], by_key[few, RANDOM])
        for few in fews
        if (few, PRETRAINED) in by_key and (few, RANDOM) in by_key
    }


def _report(cells: Sequence[Cell], facts: dict[str, Any], seeds: Sequence[int]) -> str:
    lines = [
        f"# {title_of(facts)}",
        "",
        f"`{facts['command']}`",
        "",
        f"| {' | '.join(HEADER)} |",
        "|---:|---|---:|---:|",
        *(f"| {' | '.join(row)} |" for row in table_rows(cells)),
        "",
        *[f"- {line}" for line in difference_lines(cells)],
        "",
        f"Mean ± standard deviation over seeds {', '.join(map(str, seeds))} on {facts['measured_on']} images. A seed "
        "draws the images, the head and their order; both starts train on the same images for as many steps, and with "
        "the same augmentation. The pretrained start lowers the rate layer by layer, the random start does not. "
        f"Hardware: {hardware_line()}.",
        "",
        "![top-1 over images a class](figures/few_labels.png)",
        "",
        "Each run's settings, curves and classifier are in its folder.",
    ]
    return "\n".join(lines) + "\n"
