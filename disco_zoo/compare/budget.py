"""Which recipes are compared, the proof that they share data, student, start and steps, and their images per second.

Speed is timed in interleaved rounds so that other load affects all methods alike.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from disco_zoo.config.recipe import Recipe, bundled_recipes, load_recipe
from disco_zoo.core.console import StepProgress
from disco_zoo.core.yaml_io import as_text
from disco_zoo.data.dataset import ImageSource
from disco_zoo.errors import BadRecipe, UnknownName, did_you_mean
from disco_zoo.models.encoder import backbone_fingerprint
from disco_zoo.training.build import build_parts
from disco_zoo.training.calibration import seconds_per_step

# What may differ belongs to the method: its own keys, its head, its views. Everything here is the budget.
SHARED = {
    "student": ("model", "options", "image_size", "image_sizes", "mean", "std", "init", "init_from", "weight_init"),
    "teacher": ("source", "pretrained", "image_size"),
    "data": ("id", "source", "eval_source", "max_images", "extra_source", "extra_repeats"),
    "eval": ("image_size", "resize_size", "linear"),
}


def load_compared(names: Sequence[str], student: str, overrides: Sequence[str]) -> dict[str, Recipe]:
    """The recipes by what `train` calls them.

    Args:
        names: recipes, or the name of a scale (`pocket`), which stands for all its recipes of one student.
        student: that student's `student.model`.
        overrides: `key=value`, laid over each of them; keys of a teacher are laid over those that have one.

    Raises:
        UnknownName: no such recipe, or a scale without recipes of this student.
        BadRecipe: fewer than two, or they do not share one budget.
    """
    recipes: dict[str, Recipe] = {}
    scales = {full.partition("/")[0] for full in bundled_recipes()}
    for name in names:
        if name not in scales and (hint := did_you_mean(name, scales)):
            raise UnknownName(f"unknown recipe or scale '{name}'.{hint}")
        of_scale = [full for full in bundled_recipes() if full.startswith(f"{name}/")]
        loaded = {full: load_recipe(full, fitting_overrides(full, overrides)) for full in of_scale or [name]}
        if of_scale:
            students = sorted({recipe.student.model for recipe in loaded.values()})
            loaded = {full: recipe for full, recipe in loaded.items() if recipe.student.model == student}
            if not loaded:
                raise UnknownName(f"{name} has no recipes of {student}. Type --student and one of: {_list(students)}")
        recipes |= loaded
    if len(recipes) < 2:
        raise BadRecipe(f"a comparison needs two recipes, {_list(names)} is one. Name another one, or a scale: pocket")
    _require_one_budget(recipes)
    return recipes


def label_of(recipe: Recipe) -> str:
    """Label of a recipe among others of its student, teacher and data: `seed`, not `r18.seed_lite0_fmnist`."""
    tag = recipe.name.partition(".")[2]
    method = tag.rpartition("_")[0]  # names end in the data
    if recipe.teacher is not None:
        method = method.removesuffix(f"_{recipe.teacher.source}")
    return method or recipe.name


def fitting_overrides(name: str, overrides: Sequence[str]) -> list[str]:
    """The overrides that a recipe can have: without a teacher, none of the teacher's."""
    if not any(override.startswith("teacher.") for override in overrides):
        return list(overrides)
    has_teacher = load_recipe(name).teacher is not None
    return [override for override in overrides if has_teacher or not override.startswith("teacher.")]


def require_same_start(recipes: dict[str, Recipe], seeds: Sequence[int], source: ImageSource) -> None:
    """Build each method once a seed and demand the same backbone tensors of all.

    Raises:
        BadRecipe: two of them start differently, or a recipe does not fit the images.
    """
    with StepProgress("building each method", len(seeds) * len(recipes)) as progress:
        for seed in seeds:
            first: tuple[str, str] | None = None
            for name, recipe in recipes.items():
                parts = build_parts(recipe.model_copy(update={"seed": seed}), source)
                start = backbone_fingerprint(parts.student.backbone)
                first = first or (name, start)
                if start != first[1]:
                    raise BadRecipe(f"{name} and {first[0]} do not start from the same weights with seed {seed}")
                progress.advance(progress.done + 1)


def _require_one_budget(recipes: dict[str, Recipe]) -> None:
    """Demand equal values of all that is no matter of the method."""
    labels = [label_of(recipe) for recipe in recipes.values()]
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise BadRecipe(f"two recipes are called {twice} here: give the recipes names that differ in the method")
    seen: dict[str, tuple[str, Any]] = {}
    for name, recipe in recipes.items():
        values = recipe.as_dict()
        for section, keys in {**SHARED, "optim": tuple(values["optim"])}.items():
            for key in keys if values[section] is not None else ():
                other, value = seen.setdefault(f"{section}.{key}", (name, values[section][key]))
                if value != values[section][key]:
                    first, here = as_text(value), as_text(values[section][key])
                    raise BadRecipe(
                        f"{section}.{key} is {first} in {other} and {here} in {name}: not one budget. "
                        f"Type: --set {section}.{key}={first}"
                    )


def _list(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


TIMED_STEPS = 5


@dataclass(frozen=True)
class Speed:
    """Of one recipe, over all rounds.

    Attributes:
        images_per_s: median.
        ratio: median of the rounds' ratios to the first recipe.
        ratio_range: smallest and largest of those.
    """

    images_per_s: float
    ratio: float
    ratio_range: tuple[float, float]


def measure_speeds(recipes: Mapping[str, Recipe], source: ImageSource, device: str, rounds: int) -> dict[str, Speed]:
    """Time a few steps of each recipe in turn, `rounds` times; in one process, which draws the views as well."""
    speeds: dict[str, list[float]] = {name: [] for name in recipes}
    with StepProgress("timing", rounds * len(recipes)) as progress:
        for turn in range(rounds):
            for place, (name, recipe) in enumerate(recipes.items(), start=1):
                seconds = seconds_per_step(recipe, source, device, TIMED_STEPS)
                speeds[name].append(min(recipe.optim.batch_size, len(source)) / seconds)
                progress.advance(turn * len(recipes) + place)
    first = next(iter(speeds.values()))
    ratios = {name: [own / base for own, base in zip(values, first, strict=True)] for name, values in speeds.items()}
    return {
        name: Speed(statistics.median(speeds[name]), statistics.median(of), (min(of), max(of)))
        for name, of in ratios.items()
    }
