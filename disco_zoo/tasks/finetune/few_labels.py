"""How far few labels go: one model fine-tuned on few images a class, over seeds, beside a random start."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from disco_zoo.core.claimed_dir import read_json
from disco_zoo.core.console import console
from disco_zoo.errors import BadRecipe, BadRunFolder
from disco_zoo.tasks.finetune.folder import FACTS, SETTINGS, difference
from disco_zoo.tasks.finetune.run import LabeledData, finetune_into, training_split
from disco_zoo.tasks.finetune.settings import FinetuneSettings
from disco_zoo.tasks.finetune.start import build_start
from disco_zoo.training.run import RunOptions

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
        BadRunFolder: `out` holds runs and `options.resume` is not set.
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
        training_split(plan.settings_of(few, PRETRAINED, plan.seeds[0]), data)
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
        return facts
    facts = finetune_into(settings, data, folder, replace(options, resume=(folder / SETTINGS).is_file()))
    if facts["finished"]:
        (folder / "checkpoint.pt").unlink(missing_ok=True)
    return facts


def _folder_name(few: int | None, start: str, seed: int) -> Path:
    return Path("all" if few is None else f"{few}-a-class") / start.replace(" ", "-") / f"seed-{seed}"


def _cells(plan: Plan, facts: dict[tuple[int | None, str, int], dict[str, Any]]) -> list[Cell]:
    cells = []
    for few, start in dict.fromkeys((few, start) for few, start, _ in plan.runs()):
        found = [facts[few, start, seed] for seed in plan.seeds]
        top1 = tuple(run["figures"]["top1"] for run in found)
        cells.append(Cell(few, start, plan.seeds, top1, tuple(run["training_seconds"] for run in found)))
    return cells
