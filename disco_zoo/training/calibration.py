"""Estimates the duration of a run by timing a few real steps on temporary networks."""

from __future__ import annotations

import contextlib
import time

import torch

from disco_zoo.config.recipe import Recipe
from disco_zoo.data.dataset import ImageSource
from disco_zoo.methods import Method
from disco_zoo.methods.base import Batch, batch_on
from disco_zoo.models.teacher import Teacher
from disco_zoo.training.build import build_parts
from disco_zoo.training.optim import build_optimizer
from disco_zoo.training.step_settings import apply_step_settings, recipes_by_size
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
    """Time the fastest of a few optimiser steps after a warm-up, views drawn in this process included.

    With `teacher.cache_views` it is the time of a step that reads its targets, whether the cache is there or not; with
    `student.image_sizes` the mean over the run's steps. `teacher` is one that is loaded already.
    """
    sized = recipes_by_size(recipe, len(source))
    return sum(share * _seconds_at_size(one, source, device, timed_steps, teacher) for one, share in sized)


def _seconds_at_size(
    recipe: Recipe, source: ImageSource, device: torch.device | str, timed_steps: int, teacher: Teacher | None
) -> float:
    student = recipe.student.model_copy(update={"recalibration_images": RECALIBRATION_IMAGES})
    recipe = recipe.model_copy(update={"student": student})
    parts = build_parts(recipe, source, device, at_hand=teacher)
    apply_step_settings(recipe, parts)
    method = parts.method
    optimizer = build_optimizer(method.parameters(), recipe.optim, lr=1e-9)
    plan = view_plan(recipe.views, recipe.view_size, method.num_views)
    companions = Neighbor(len(source)) if method.takes_companions else None
    dataset = ViewDataset(source, plan, seed=recipe.seed, epoch=0, companions=companions)
    size = min(recipe.optim.batch_size, len(source))
    timings = []
    for step in range(1 + timed_steps):
        begun = time.monotonic()
        batch = collate_views([dataset[(step * size + row) % len(source)] for row in range(size)])
        if recipe.teacher is not None and recipe.teacher.cache_views and parts.teacher is not None:
            width = parts.teacher.embed_dim
            batch["targets"] = [torch.ones(len(views), width, dtype=torch.float16) for views in batch["views"]]
        take_step(method, optimizer, batch_on(device, batch))
        timings.append(time.monotonic() - begun)
    return min(timings[1:])


class Neighbor:
    """The next image as companion, for methods that show two images: which one it is costs nothing more or less."""

    def __init__(self, num_images: int) -> None:
        self.num_images = num_images

    def __call__(self, epoch: int, index: int) -> int:
        return (index + 1) % self.num_images


def take_step(
    method: Method,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    *,
    micro_batches: int = 1,
    precision: contextlib.AbstractContextManager[object] | None = None,
) -> None:
    """A step as the engine takes it, without its checks and logs.

    Args:
        micro_batches: forwards and backwards before the optimiser's step, each of the whole batch.
        precision: an autocast, entered for each forward; None for full precision.
    """
    method.train()
    for _ in range(micro_batches):
        with precision or contextlib.nullcontext():
            loss = method(batch)["loss"]
        loss.backward()
    method.before_step()
    optimizer.step()
    optimizer.zero_grad()
    method.after_step()
