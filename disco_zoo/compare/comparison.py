"""A whole comparison: train, time, and measure each method, and tabulate the results."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from disco_zoo.compare.budget import (
    Speed,
    fitting_overrides,
    label_of,
    load_compared,
    measure_speeds,
    require_same_start,
)
from disco_zoo.compare.figures import head_widths, measure_beside, measure_runs, same_head
from disco_zoo.compare.runs import PlannedRun, train_all
from disco_zoo.config.recipe import Recipe, load_recipe
from disco_zoo.core.claimed_dir import FACTS
from disco_zoo.core.environment import hardware, now, versions
from disco_zoo.core.files import require_folder
from disco_zoo.evaluation.measure import recipe_bench
from disco_zoo.methods import METHODS
from disco_zoo.training.run_data import Data, open_data
from disco_zoo.training.task import total_steps

KNN, LINEAR = "knn20_top1", "linear_top1"
BASELINE_METHOD = "moco_v2"


@dataclass(frozen=True)
class Row:
    """One method.

    Attributes:
        views: per image and step, in words.
        head_width: of the head's hidden layer; None without one.
        figures: one dictionary a seed, percent by metric.
        differences: by metric, one a seed: points above the baseline of the same seed.
        peak_memory_mib: the largest of its trainings, None where nobody counts it.
        speed: None where it was not timed.
    """

    label: str
    recipe: str
    method: str
    teacher: str | None
    views: str
    figures: list[dict[str, float]]
    differences: dict[str, list[float]]
    peak_memory_mib: float | None
    speed: Speed | None
    head_width: int | None = None

    def mean(self, metric: str) -> float:
        return statistics.mean(figures[metric] for figures in self.figures)

    def deviation(self, metric: str) -> float | None:
        """Standard deviation over seeds; None with one seed."""
        values = [figures[metric] for figures in self.figures]
        return statistics.stdev(values) if len(values) > 1 else None


@dataclass(frozen=True)
class Comparison:
    """What `compare` found; `beside` has the figures of start and teacher, `baseline` is a row's label."""

    title: str
    baseline: str
    rows: list[Row]
    beside: dict[str, dict[str, float]]
    protocol: str
    budget: dict[str, Any]
    data: dict[str, Any]
    seeds: list[int]
    command: str
    hardware: dict[str, Any]
    measured: str = field(default_factory=now)
    versions: dict[str, str] = field(default_factory=versions)

    @property
    def timed(self) -> bool:
        return all(row.speed is not None for row in self.rows)

    def ranked(self) -> list[Row]:
        """Best kNN first."""
        return sorted(self.rows, key=lambda row: -row.mean(KNN))

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class CompareOptions:
    """How to compare.

    Attributes:
        out, report: folders of the runs, and of table and picture.
        train_options: of `disco-zoo train`, the same for all runs.
        jobs: trainings at a time.
        timing_rounds: 0 times nothing.
        max_steps: of each run, for a look.
        same_head: give every head with a hidden layer the width of the widest.
    """

    seeds: Sequence[int]
    out: Path
    report: Path
    train_options: Sequence[str]
    device: str
    jobs: int = 1
    timing_rounds: int = 3
    max_steps: int | None = None
    same_head: bool = False
    resume: bool = False
    command: str = ""


def what_is_compared(recipes: Sequence[Recipe]) -> str:
    """ "15 methods", or "5 recipes of disco"."""
    methods = {recipe.method["name"] for recipe in recipes}
    return f"{len(recipes)} methods" if len(methods) > 1 else f"{len(recipes)} recipes of {methods.pop()}"


def compare(
    names: Sequence[str],
    *,
    student: str,
    data: str | None,
    eval_data: str | None,
    overrides: Sequence[str],
    options: CompareOptions,
) -> Comparison:
    """Compare recipes on one budget.

    Raises:
        DiscoZooError: the comparison cannot be made; finished runs are kept.
    """
    recipes = _baseline_first(load_compared(names, student, overrides))
    own = {name: fitting_overrides(name, overrides) for name in recipes}
    if options.same_head:
        own = {name: own[name] + added for name, added in same_head(recipes).items()}
        recipes = {name: load_recipe(name, own[name]) for name in recipes}
    first = next(iter(recipes.values()))
    sources = open_data(first, data, eval_data)
    bench = recipe_bench(first, sources.bank, sources.require_test(), options.device)
    for folder in (options.out, options.report):
        require_folder(folder)
    require_same_start(recipes, options.seeds, sources.trained_on)
    runs = _plan(recipes, sources, own, options)
    train_all(runs, options.train_options, jobs=options.jobs, resume=options.resume)
    figures = measure_runs(runs, bench)
    beside = measure_beside(recipes, options.seeds, bench, sources.trained_on)
    timed = options.timing_rounds > 0
    speeds = measure_speeds(recipes, sources.trained_on, options.device, options.timing_rounds) if timed else {}
    return Comparison(
        title=f"{first.student.model} by {what_is_compared(list(recipes.values()))}",
        baseline=label_of(first),
        rows=_rows(recipes, runs, figures, speeds),
        beside=beside,
        protocol=bench.protocol,
        budget={
            "student": first.student.model,
            "image_size": first.student.image_size,
            "init": first.student.init,
            "steps": runs[0].steps,
            "batch_size": first.optim.batch_size,
            "shortened": options.max_steps is not None,
            "optimizer": first.optim.optimizer,
            "same_head": options.same_head,
        },
        data={
            "name": Path(data).name if data else first.data.id,
            "train_images": len(sources.train),
            "test_images": len(bench.test),
        },
        seeds=list(options.seeds),
        command=options.command,
        hardware=hardware(options.device),
    )


def _baseline_first(recipes: dict[str, Recipe]) -> dict[str, Recipe]:
    """MoCo-v2 without a teacher, where there is one, is what all others are compared with."""
    found = [name for name, recipe in recipes.items() if recipe.method["name"] == BASELINE_METHOD]
    return {name: recipes[name] for name in dict.fromkeys([*found[:1], *recipes])}


def _plan(
    recipes: Mapping[str, Recipe], sources: Data, overrides: Mapping[str, Sequence[str]], options: CompareOptions
) -> list[PlannedRun]:
    """Seed by seed, so that an interrupted comparison holds whole seeds."""
    runs = []
    images = sources.fingerprints
    for seed in options.seeds:
        for name, recipe in recipes.items():
            steps = total_steps(recipe, len(sources.trained_on))
            seeded = recipe.model_copy(update={"seed": seed})
            folder = options.out / recipe.name / f"seed{seed}"
            steps = min(steps, options.max_steps or steps)
            runs.append(PlannedRun(name, label_of(recipe), seeded, folder, steps, images, overrides[name]))
    return runs


def _rows(
    recipes: Mapping[str, Recipe],
    runs: Sequence[PlannedRun],
    figures: Sequence[dict[str, float]],
    speeds: Mapping[str, Speed],
) -> list[Row]:
    """One row a recipe, in the recipes' order: the baseline first."""
    by_name = {name: [found for run, found in zip(runs, figures, strict=True) if run.name == name] for name in recipes}
    base = next(iter(by_name.values()))
    rows, widths = [], head_widths(recipes)
    for name, recipe in recipes.items():
        own = by_name[name]
        differences = {
            metric: [mine[metric] - theirs[metric] for mine, theirs in zip(own, base, strict=True)]
            for metric in (KNN, LINEAR)
        }
        facts = [json.loads((run.folder / FACTS).read_text(encoding="utf-8")) for run in runs if run.name == name]
        peaks = [fact["peak_memory_mib"] for fact in facts if fact.get("peak_memory_mib") is not None]
        rows.append(
            Row(
                label_of(recipe),
                recipe.name,
                recipe.method["name"],
                facts[0]["teacher"] and facts[0]["teacher"]["title"],
                _views(recipe),
                own,
                differences,
                max(peaks, default=None),
                speeds.get(name),
                widths[name],
            )
        )
    return rows


def _views(recipe: Recipe) -> str:
    """For example "2", "2 + 6 small", "2 of 2 images"."""
    method = METHODS[recipe.method["name"]]
    small = recipe.views["small_views"]
    return (
        f"{method.num_views}{f' + {small} small' if small else ''}{' of 2 images' if method.takes_companions else ''}"
    )
