"""Estimates the duration of a run by timing a few real steps on temporary networks."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterable, Iterator

import torch

from disco_zoo.config.optim import require_batches
from disco_zoo.config.recipe import Recipe
from disco_zoo.data.dataset import ImageSource
from disco_zoo.methods import Method
from disco_zoo.methods.base import Batch, batch_on
from disco_zoo.models.teacher import Teacher
from disco_zoo.training.accelerator import require_precision
from disco_zoo.training.build import Parts, build_parts
from disco_zoo.training.optim import build_optimizer
from disco_zoo.training.step_settings import apply_step_settings, autocast, recipes_by_size
from disco_zoo.transforms.view_dataset import ViewDataset, collate_views, view_plan

TIMED_STEPS = 2
RECALIBRATION_IMAGES = 8  # of an inherited start: what BatchNorm's statistics are costs a step nothing


def seconds_per_step(
    recipe: Recipe,
    source: ImageSource,
    device: torch.device | str,
    timed_steps: int = TIMED_STEPS,
    teacher: Teacher | None = None,
) -> float:
    """Time the fastest of a few optimiser steps of one process after a warm-up, views drawn in this process included.

    With `teacher.cache_views` it is the time of a step that reads its targets, whether the cache is there or not; with
    `student.image_sizes` the mean over the run's steps. `teacher` is one that is loaded already.

    Raises:
        BadRecipe: as a run of this recipe: its batches do not fit the images, or its precision the device.
    """
    require_batches(recipe.optim, len(source), num_processes=1)
    require_precision(recipe, str(device))
    sized = recipes_by_size(recipe, len(source))
    return sum(share * _seconds_at_size(one, source, device, timed_steps, teacher) for one, share in sized)


def _seconds_at_size(
    recipe: Recipe, source: ImageSource, device: torch.device | str, timed_steps: int, teacher: Teacher | None
) -> float:
    student = recipe.student.model_copy(update={"recalibration_images": RECALIBRATION_IMAGES})
    recipe = recipe.model_copy(update={"student": student})
    parts = build_parts(recipe, source, device, at_hand=teacher)
    apply_step_settings(recipe, parts)
    optimizer = build_optimizer(parts.method.parameters(), recipe.optim, lr=1e-9)
    batches = _micro_batches(recipe, source, parts, device)
    timings = []
    for _ in range(1 + timed_steps):
        begun = time.monotonic()
        of_a_step = itertools.islice(batches, recipe.optim.accumulation_steps)
        take_step(parts.method, optimizer, of_a_step, precision=autocast(recipe, device))
        timings.append(time.monotonic() - begun)
    return min(timings[1:])


def _micro_batches(recipe: Recipe, source: ImageSource, parts: Parts, device: torch.device | str) -> Iterator[Batch]:
    """Of the images in order, again and again; with targets where the run replays a cache."""
    method, size = parts.method, recipe.optim.batch_size // recipe.optim.accumulation_steps
    plan = view_plan(recipe.views, recipe.view_size, method.num_views)
    companions = Neighbor(len(source)) if method.takes_companions else None
    dataset = ViewDataset(source, plan, seed=recipe.seed, epoch=0, companions=companions)
    for first in itertools.count(0, size):
        batch = collate_views([dataset[(first + row) % len(source)] for row in range(size)])
        if recipe.teacher is not None and recipe.teacher.cache_views and parts.teacher is not None:
            width = parts.teacher.embed_dim
            batch["targets"] = [torch.ones(len(views), width, dtype=torch.float16) for views in batch["views"]]
        yield batch_on(device, batch)


class Neighbor:
    """The next image as companion, for methods that show two images: which one it is costs nothing more or less."""

    def __init__(self, num_images: int) -> None:
        self.num_images = num_images

    def __call__(self, epoch: int, index: int) -> int:
        return (index + 1) % self.num_images


def take_step(
    method: Method,
    optimizer: torch.optim.Optimizer,
    micro_batches: Iterable[Batch],
    *,
    precision: contextlib.AbstractContextManager[object] | None = None,
) -> None:
    """A step as the engine takes it, without its checks and logs.

    Args:
        micro_batches: a forward and backward each, before the optimiser's step.
        precision: an autocast, entered for each forward; None for full precision.
    """
    method.train()
    for batch in micro_batches:
        with precision or contextlib.nullcontext():
            loss = method(batch)["loss"]
        loss.backward()
    method.before_step()
    optimizer.step()
    optimizer.zero_grad()
    method.after_step()
