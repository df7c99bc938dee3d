"""kNN and linear figures of finished runs and of their references, and the widths of their heads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from disco_zoo.compare.runs import PlannedRun
from disco_zoo.config.recipe import Recipe
from disco_zoo.core.claimed_dir import FACTS
from disco_zoo.core.files import write_whole
from disco_zoo.data.dataset import ImageSource
from disco_zoo.evaluation.measure import Bench
from disco_zoo.models.encoder import feature_dim_of
from disco_zoo.models.student import create_backbone, load_backbone
from disco_zoo.training.build import build_parts, build_teacher

_HIDDEN = ("mlp", "mlp_bn")


def head_widths(recipes: Mapping[str, Recipe]) -> dict[str, int | None]:
    """Width of each head's hidden layer; None for heads without one. All recipes are of one student."""
    student = next(iter(recipes.values())).student
    with torch.device("meta"):
        features = feature_dim_of(create_backbone(student.model, student.options))
    return {name: _width(recipe, features) for name, recipe in recipes.items()}


def same_head(recipes: Mapping[str, Recipe]) -> dict[str, list[str]]:
    """Overrides that give every head with a hidden layer the width of the widest of them; none where it has it."""
    widths = head_widths(recipes)
    widest = max((width for width in widths.values() if width), default=0)
    overrides = [f"student.head_hidden_dim={widest}", "student.head_hidden_ratio=null"]
    return {name: overrides if width not in (None, widest) else [] for name, width in widths.items()}


def _width(recipe: Recipe, features: int) -> int | None:
    student = recipe.student
    if student.head not in _HIDDEN:
        return None
    return student.head_hidden_dim or max(1, round(features * (student.head_hidden_ratio or 1.0)))


FILE = "compared.json"
PIXELS, PIXELS_SIZE = "raw pixels", 28  # of the embedded sample, whose images have this side


def measure_runs(runs: Sequence[PlannedRun], bench: Bench) -> list[dict[str, float]]:
    """Percent by metric of each finished run; a figure already in its folder is taken from there."""
    key = bench_key(bench)
    return [_measure_run(run, bench, key, f"measuring {run.title}") for run in runs]


def measure_beside(
    recipes: Mapping[str, Recipe], seeds: Sequence[int], bench: Bench, trained_on: ImageSource
) -> dict[str, dict[str, float]]:
    """Figures of start (mean over seeds), the sample's pixels, and each teacher at its own and the student's size.

    Args:
        trained_on: the images of the runs, from which a start may be calibrated.
    """
    first = next(iter(recipes.values()))
    starts = []
    for seed in seeds:
        parts = build_parts(first.model_copy(update={"seed": seed}), trained_on)
        starts.append(bench.measure_student(parts.student, f"measuring start, seed {seed}").figures)
    figures = {"untrained start": {metric: sum(s[metric] for s in starts) / len(starts) for metric in starts[0]}}
    if bench.train.name == "sample":
        figures[PIXELS] = bench.measure_pixels(PIXELS_SIZE)
    section = next((recipe.teacher for recipe in recipes.values() if recipe.teacher is not None), None)
    if section is None:
        return figures
    own_size = section.image_size or bench.image_size
    teacher = build_teacher(own_size, section, bench.device)
    for size in dict.fromkeys((bench.image_size, own_size)):
        title = f"teacher, {size} px"
        figures[title] = bench.measure(
            teacher.backbone,
            mean=teacher.loaded.mean,
            std=teacher.loaded.std,
            label=f"measuring {title}",
            image_size=None if size == bench.image_size else size,
        ).figures
    return figures


def bench_key(bench: Bench) -> dict[str, Any]:
    """Values that must be equal for figures to be comparable."""
    return {
        "protocol": bench.protocol,
        "image_size": bench.image_size,
        "resize_size": bench.resize_size,
        "train": bench.train.fingerprint(),
        "test": bench.test.fingerprint(),
    }


def _measure_run(run: PlannedRun, bench: Bench, key: Mapping[str, Any], label: str) -> dict[str, float]:
    facts = json.loads((run.folder / FACTS).read_text(encoding="utf-8"))
    key = {**key, "student": facts["student"]["sha256"]}
    kept = run.folder / FILE
    if kept.is_file():
        stored = json.loads(kept.read_text(encoding="utf-8"))
        if stored["key"] == key:
            return dict(stored["figures"])
    student = run.recipe.student
    backbone = create_backbone(student.model, student.options)
    load_backbone(backbone, run.folder / facts["student"]["file"])
    figures = bench.measure(backbone, mean=student.mean, std=student.std, label=label).figures
    text = json.dumps({"key": key, "figures": figures}, indent=2) + "\n"
    write_whole(kept, lambda partial: partial.write_text(text, encoding="utf-8"))
    return figures
