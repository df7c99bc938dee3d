"""Obtain a checkpoint of the zoo again: train baseline and student, measure all, compare with the catalog."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from disco_zoo.config.recipe import Recipe, load_recipe, with_seed
from disco_zoo.core.console import console, duration
from disco_zoo.errors import counted
from disco_zoo.evaluation.features import Features
from disco_zoo.evaluation.measure import Bench, recipe_bench
from disco_zoo.models.student import create_backbone
from disco_zoo.models.teacher import Teacher
from disco_zoo.reproduction.verdict import Verdict, judge
from disco_zoo.training.build import seeded_teacher
from disco_zoo.training.calibration import seconds_per_step
from disco_zoo.training.run import Run, RunOptions
from disco_zoo.training.run_data import Data, open_data
from disco_zoo.training.run_folder import RunFolder, require_begun
from disco_zoo.training.task import total_steps
from disco_zoo.zoo.catalog import Checkpoint, load_catalog
from disco_zoo.zoo.choice import POCKET_DATA, Choice
from disco_zoo.zoo.papers import METHOD_TITLES

LOOK_IMAGES = 1000  # a run shortened by --steps is measured on so many training and test images, or some more
PIXELS_SIZE = 28  # raw pixels of the embedded sample


@dataclass(frozen=True)
class Reproduction:
    """What `reproduce_choice` found.

    Attributes:
        folder: of the student's run, still claimed: close it.
        figures: percent by subject and metric.
        test_features: of start and student, for the picture.
        training_seconds, seconds: of training alone, and of the whole command.
    """

    checkpoint: Checkpoint
    recipe: Recipe
    folder: RunFolder
    data: Data
    teacher: Teacher | None
    figures: dict[str, dict[str, float]]
    protocol: str
    test_features: dict[str, Features]
    verdict: Verdict
    training_seconds: float
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """What `--json` prints and `results.json` holds."""
        return {
            "name": self.checkpoint.name,
            "seed": self.recipe.seed,
            "figures": self.figures,
            "protocol": self.protocol,
            "verdict": self.verdict.outcome,
            "why": self.verdict.why,
            "comparisons": [vars(comparison) for comparison in self.verdict.comparisons],
            "seconds": round(self.seconds, 1),
            "training_seconds": round(self.training_seconds, 1),
        }


def reproduce_choice(
    choice: Choice,
    *,
    data: str | None,
    eval_data: str | None,
    out: Path,
    overrides: Iterable[str],
    seed: int | None,
    options: RunOptions,
) -> Reproduction:
    """Train the baseline and the student of a checkpoint's recipe, measure, judge.

    Raises:
        DiscoZooError: the command cannot be carried out; nothing that was there is lost.
    """
    started = time.monotonic()
    overrides = list(overrides)
    seeded = with_seed(overrides, seed)
    assert choice.checkpoint.recipe is not None  # `choose_checkpoint` sees to that
    recipe = load_recipe(choice.checkpoint.recipe, seeded)
    baseline = load_recipe(recipe.reproduce.baseline, _shared(seeded)) if recipe.reproduce.baseline else None
    if options.resume:
        require_begun(out, out / "baseline")
    sources = open_data(recipe, data, eval_data)
    why_not = _why_not(choice.checkpoint, recipe, sources, overrides, options)
    bench = _bench(recipe, sources, options)
    teacher = seeded_teacher(recipe, options.device)
    _announce(choice, [r for r in (baseline, recipe) if r], sources, teacher, options)
    _announce_measuring(bench, recipe, teacher, subjects=3 if baseline else 2)

    figures: dict[str, dict[str, float]] = {}
    training_seconds = 0.0
    if baseline is not None:
        label = f"{METHOD_TITLES[baseline.method['name']]} baseline"
        with contextlib.closing(Run(baseline, sources, out / "baseline", options, label=label, teacher=teacher)) as run:
            training_seconds += run.train().seconds
            figures["baseline"] = bench.measure_student(run.parts.student, "measuring baseline").figures
    label = f"{METHOD_TITLES[recipe.method['name']]} student"
    run = Run(recipe, sources, out, options, label=label, teacher=teacher)
    try:
        start = bench.measure_student(run.parts.student, "measuring start")
        training_seconds += run.train().seconds
        student = bench.measure_student(run.parts.student, "measuring student")
        figures |= {"start": start.figures, "student": student.figures}
        if teacher is not None:
            figures |= _measure_teacher(bench, teacher, recipe)
        if choice.checkpoint.data == POCKET_DATA:
            figures["pixels"] = bench.measure_pixels(PIXELS_SIZE)
    except BaseException:
        run.close()
        raise
    return Reproduction(
        checkpoint=choice.checkpoint,
        recipe=recipe,
        folder=run.folder,
        data=sources,
        teacher=teacher,
        figures=figures,
        protocol=bench.protocol,
        test_features={"start": start.test_features, "student": student.test_features},
        verdict=judge(choice.checkpoint, figures, why_not=why_not),
        training_seconds=training_seconds,
        seconds=time.monotonic() - started,
    )


def _shared(overrides: list[str]) -> list[str]:
    """Overrides that the baseline takes over: those that are not about method or teacher."""
    return [o for o in overrides if not o.startswith(("method.", "teacher.", "student.head", "reproduce."))]


def _why_not(checkpoint: Checkpoint, recipe: Recipe, sources: Data, overrides: list[str], options: RunOptions) -> str:
    """A reason why the catalog's figures are not this run's to meet; "" when they are."""
    datasets = load_catalog().datasets
    used = [(checkpoint.data, sources.train)]
    if sources.extra is not None and recipe.data.extra_id:
        used.append((recipe.data.extra_id, sources.extra.extra))
    for name, source in used:
        expected = datasets.get(name)
        if expected is None:  # of the extra ones alone: the catalog knows its checkpoints' data
            return "other data: extra images of your own"
        if len(source) != expected.num_train:
            return f"other data: {len(source)} images where {expected.title} has {expected.num_train}"
    if options.max_steps is not None:
        return f"shortened to {options.max_steps} steps and measured on part of the images"
    return f"the recipe was changed ({', '.join(overrides)})" if overrides else ""


def _bench(recipe: Recipe, sources: Data, options: RunOptions) -> Bench:
    """Where everything is measured; checked before the long work."""
    test = sources.require_test()
    # Twenty images a class leave next to no class out of the random choice.
    look_images = max(LOOK_IMAGES, 20 * len(set(test.labels or ())))
    max_images = look_images if options.max_steps is not None else None
    return recipe_bench(recipe, sources.bank, test, options.device, max_images)


def _measure_teacher(bench: Bench, teacher: Teacher, recipe: Recipe) -> dict[str, dict[str, float]]:
    """The teacher at the student's input size, and at the size it taught at where that differs."""
    mean, std = teacher.loaded.mean, teacher.loaded.std
    teacher.encoder.to(bench.device)  # a run that has a cache sends it away
    figures = {"teacher": bench.measure(teacher.backbone, mean=mean, std=std, label="measuring teacher").figures}
    own_size = recipe.teacher.image_size if recipe.teacher else None
    if own_size and own_size != bench.image_size:
        label = f"measuring teacher at {own_size} px"
        own = bench.measure(teacher.backbone, mean=mean, std=std, image_size=own_size, label=label)
        figures["teacher_own_size"] = own.figures
    return figures


def _announce(
    choice: Choice, recipes: list[Recipe], sources: Data, teacher: Teacher | None, options: RunOptions
) -> None:
    """Say what will happen and how long it will take, from a few real steps on this machine."""
    main = recipes[-1]
    donor = main.student.init_from or "the teacher"
    start = {"inherit": f"tensors inherited from {donor}", "random": "random weights"}
    lines = [choice.why] if choice.why else []
    extra = f", and {len(sources.extra) - len(sources.train)} extra ones an epoch" if sources.extra else ""
    lines += [
        f"{choice.checkpoint.name}: {choice.checkpoint.summary}",
        f"  data     {sources.train.name}: {counted(len(sources.train), 'image')}{extra}; training does not use labels",
        f"  student  {main.student.model} at {main.student.image_size} px, start: "
        f"{start.get(main.student.init, main.student.init_from)}",
    ]
    if teacher is not None and main.teacher is not None:
        size = main.teacher_size
        lines.append(f"  teacher  {teacher.title}, frozen, at {size} px")
    for line in lines:
        console.print(line, soft_wrap=True)
    seconds = 0.0
    for number, recipe in enumerate(recipes, start=1):
        steps = total_steps(recipe, len(sources.trained_on))
        steps = min(steps, options.max_steps or steps)
        seconds += steps * seconds_per_step(recipe, sources.trained_on, options.device, teacher=teacher)
        what = f"{recipe.method['name']}, {steps} steps of {recipe.optim.batch_size} images, seed {recipe.seed}"
        console.print(f"  run {number}    {what}", soft_wrap=True)
    less = ", less what is done already" if options.resume else ""
    console.print(f"  time     about {duration(seconds)} of training here{less}", soft_wrap=True)


def _announce_measuring(bench: Bench, recipe: Recipe, teacher: Teacher | None, subjects: int) -> None:
    """Say how long the features of all that is measured take, from those of a few images.

    Args:
        subjects: students: start, end, and the baseline's end.
    """
    student = create_backbone(recipe.student.model, recipe.student.options)
    seconds = subjects * bench.feature_seconds(student)
    if teacher is not None:
        sizes = {recipe.teacher_size, bench.image_size}
        seconds += sum(bench.feature_seconds(teacher.backbone, size) for size in sizes)
    console.print(f"           and about {duration(seconds)} of measuring, plus the linear probes", soft_wrap=True)
