"""How far few labels go: one model fine-tuned on few images a class, over seeds, beside a random start; its table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from disco_zoo.core.checkpoint import write_atomically
from disco_zoo.core.claimed_dir import CHECKPOINT, FACTS, read_json, write_json
from disco_zoo.core.console import console, duration
from disco_zoo.core.environment import hardware_line
from disco_zoo.errors import BadData, BadRecipe, BadRunFolder
from disco_zoo.plotting.style import COLORS, drawing
from disco_zoo.tasks.finetune.run import LabeledData, finetune_into, shown_model, test_images, training_split
from disco_zoo.tasks.finetune.settings import SETTINGS, FinetuneSettings, difference
from disco_zoo.tasks.finetune.start import build_start
from disco_zoo.training.run import RunOptions
from disco_zoo.zoo.facts import mean_and_spread

PRETRAINED, RANDOM = "pretrained", "random start"


@dataclass(frozen=True)
class Cell:
    """One number of labels and one start, over the seeds.

    Attributes:
        few: training images a class; None for all.
        start: `PRETRAINED` or `RANDOM`.
        top1: in percent, one a seed.
        seconds: of training, one a seed.
    """

    few: int | None
    start: str
    seeds: tuple[int, ...]
    top1: tuple[float, ...]
    seconds: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.top1)

    @property
    def sd(self) -> float | None:
        """Sample standard deviation over the seeds; None for one seed."""
        return statistics.stdev(self.top1) if len(self.top1) > 1 else None

    def as_json(self) -> dict[str, Any]:
        lists = {"seeds": list(self.seeds), "top1": list(self.top1), "seconds": list(self.seconds)}
        return {"few": self.few, "start": self.start, **lists, "mean": self.mean, "sd": self.sd}


@dataclass(frozen=True)
class Plan:
    """All runs of a comparison.

    Attributes:
        settings: of each run; `few`, `seed` and `untrained` are filled in.
        fews: training images a class, growing; `(None,)` for all.
        seeds: each draws its own images, head and order; both starts see the same images.
        compare_untrained: run the random start, too.
    """

    settings: FinetuneSettings
    fews: tuple[int | None, ...]
    seeds: tuple[int, ...]
    compare_untrained: bool

    def runs(self) -> list[tuple[int | None, str, int]]:
        starts = (
            (PRETRAINED, RANDOM) if self.compare_untrained else (RANDOM if self.settings.untrained else PRETRAINED,)
        )
        return [(few, start, seed) for few in self.fews for start in starts for seed in self.seeds]

    def settings_of(self, few: int | None, start: str, seed: int) -> FinetuneSettings:
        return self.settings.model_copy(update={"few": few, "seed": seed, "untrained": start == RANDOM})


def make_plan(settings: FinetuneSettings, fews: Sequence[int], seeds: Sequence[int], compare_untrained: bool) -> Plan:
    """Check a comparison before its first run.

    Raises:
        BadRecipe: a seed or number twice, or a comparison of what cannot start at random.
    """
    if len(set(seeds)) < len(seeds) or len(set(fews)) < len(fews):
        raise BadRecipe("finetune: a seed or a number of --few is given twice. Give each once")
    if compare_untrained and (settings.head_only or settings.untrained):
        odd = "--head-only" if settings.head_only else "--untrained"
        raise BadRecipe(f"finetune: --compare-untrained trains from both starts. Leave {odd} out")
    return Plan(settings, tuple(sorted(fews)) or (settings.few,), tuple(seeds) or (settings.seed,), compare_untrained)


def compare(plan: Plan, data: LabeledData, out: Path, options: RunOptions) -> list[Cell]:
    """Make all runs that are not made yet, each in a folder below `out`; its classifier stays, its checkpoint goes.

    Raises:
        BadData: there are no test images and none are held out.
        BadRunFolder: `out` holds runs and `options.resume` is not set, or other runs than these.
        DiscoZooError: as `finetune`.
    """
    runs = plan.runs()
    folders = {run: out / _folder_name(*run) for run in runs}
    begun = [folder for folder in folders.values() if (folder / SETTINGS).is_file()]
    if begun and not options.resume:
        raise BadRunFolder(f"{out} already holds runs. Add --resume to go on, or choose another --out")
    if options.resume and not begun:
        raise BadRunFolder(f"{out} holds no run to resume. Repeat the command without --resume")
    _check_all(plan, data)
    facts = {}
    for number, run in enumerate(runs, start=1):
        few, start, seed = run
        console.print(f"Run {number} of {len(runs)}: {few or 'all'} images a class, {start}, seed {seed}")
        facts[run] = _one_run(plan.settings_of(*run), data, folders[run], options)
    return _cells(plan, facts)


def paired_difference(pretrained: Cell, random: Cell) -> tuple[float, float | None]:
    """Mean and sample standard deviation, over the seeds, of pretrained minus random in percentage points.

    Raises:
        ValueError: the two are not of the same seeds.
    """
    if pretrained.seeds != random.seeds:
        raise ValueError(f"seeds {pretrained.seeds} and {random.seeds} cannot be paired")
    gains = [ours - theirs for ours, theirs in zip(pretrained.top1, random.top1, strict=True)]
    return statistics.fmean(gains), statistics.stdev(gains) if len(gains) > 1 else None


def _check_all(plan: Plan, data: LabeledData) -> None:
    """Find what the last run would fail on before the first one starts."""
    for few in plan.fews:
        _, held_out = training_split(plan.settings_of(few, PRETRAINED, plan.seeds[0]), data)
        if data.test is None and held_out is None:
            raise BadData(f"{data.train.name} has no images to measure on: add --eval-data, or --val-fraction 0.2")
    for start in {start for _, start, _ in plan.runs()}:
        build_start(plan.settings_of(plan.fews[0], start, plan.seeds[0]), data.names)


def _one_run(settings: FinetuneSettings, data: LabeledData, folder: Path, options: RunOptions) -> dict[str, Any]:
    facts = read_json(folder / FACTS)
    if facts.get("finished"):
        train, _ = training_split(settings, data)
        odd = difference(facts["settings"], settings.resolved(len(train)).as_dict())
        if odd or facts["data"]["fingerprint"] != train.fingerprint():
            raise BadRunFolder(
                f"{folder} holds a run of other settings ({odd or 'other images'}). Choose another --out"
            )
        if facts["measured_on"] != (wanted := _measured_on(data)):
            measured = facts["measured_on"] or "no"
            raise BadRunFolder(
                f"{folder} was measured on {measured} images, not on {wanted} ones. Choose another --out"
            )
        test = test_images(settings, data)
        if test is not None and facts["data"].get("test_fingerprint") != test.fingerprint():
            raise BadRunFolder(f"{folder} was not measured on the test images {test.name}. Choose another --out")
        return facts
    facts = finetune_into(settings, data, folder, replace(options, resume=(folder / SETTINGS).is_file()))
    if facts["finished"]:
        (folder / CHECKPOINT).unlink(missing_ok=True)
    return facts


def _measured_on(data: LabeledData) -> str:
    return "test" if data.test is not None else "held-out"


def _folder_name(few: int | None, start: str, seed: int) -> Path:
    return Path("all" if few is None else f"{few}-a-class") / start.replace(" ", "-") / f"seed-{seed}"


def _cells(plan: Plan, facts: dict[tuple[int | None, str, int], dict[str, Any]]) -> list[Cell]:
    cells = []
    for few, start in dict.fromkeys((few, start) for few, start, _ in plan.runs()):
        found = [facts[few, start, seed] for seed in plan.seeds]
        top1 = tuple(run["figures"]["top1"] for run in found)
        cells.append(Cell(few, start, plan.seeds, top1, tuple(run["training_seconds"] for run in found)))
    return cells


HEADER = ("images a class", "start", "top-1, %", "training a run")


def write_comparison(
    cells: Sequence[Cell], plan: Plan, data: LabeledData, out: Path, command: str, device: str = "cpu"
) -> dict[str, Any]:
    """Write few_labels.json, report.md and the picture into `out`; return what the JSON holds.

    Args:
        device: that the runs were trained on.
    """
    facts = {
        "model": shown_model(plan.settings.model),
        "data": Path(data.train.name).name,
        "command": command,
        "measured_on": _measured_on(data),
        "classes": len(data.names),
        "cells": [cell.as_json() for cell in cells],
        "differences": [{"few": few, "mean": mean, "sd": sd} for few, (mean, sd) in _differences(cells).items()],
    }
    write_json(out / "few_labels.json", facts)
    figures = out / "figures"
    figures.mkdir(exist_ok=True)
    plot_few_labels(cells, len(data.names), figures / "few_labels.png", title_of(facts))
    report = _report(cells, facts, plan.seeds, device)
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
            mean_and_spread(cell.mean, cell.sd),
            duration(sum(cell.seconds) / len(cell.seconds)),
        )
        for cell in cells
    ]


def difference_lines(cells: Sequence[Cell]) -> list[str]:
    """Pretrained minus random in words, one line a number of labels; none where only one start was run."""
    return [
        f"{few or 'all'} images a class: pretrained minus random {'+' if mean >= 0 else ''}{mean_and_spread(mean, sd)} "
        "points, paired by seed"
        for few, (mean, sd) in _differences(cells).items()
    ]


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


BOTH_STARTS = (
    "; both starts train on the same images for as many steps, and with the same augmentation. The pretrained start "
    "lowers the rate layer by layer, the random start does not"
)


def _of_seeds(seeds: Sequence[int]) -> str:
    if len(seeds) == 1:
        return f"Seed {seeds[0]}"
    return f"Mean ± standard deviation over seeds {', '.join(map(str, seeds))}"


def _report(cells: Sequence[Cell], facts: dict[str, Any], seeds: Sequence[int], device: str) -> str:
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
        f"{_of_seeds(seeds)} on {facts['measured_on']} images. A seed draws the images, the head and their order"
        f"{BOTH_STARTS if _differences(cells) else ''}. Hardware: {hardware_line(device)}.",
        "",
        "![top-1 over images a class](figures/few_labels.png)",
        "",
        "Each run's settings, curves and classifier are in its folder.",
    ]
    return "\n".join(lines) + "\n"
