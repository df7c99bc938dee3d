"""How far a run is, and what it came to."""

from __future__ import annotations

from dataclasses import dataclass, field

from disco_zoo.config.recipe import Recipe


@dataclass
class Position:
    """How far a run is; all of it goes into the checkpoint."""

    step: int = 0
    seconds: float = 0.0
    data_wait_seconds: float = 0.0
    unreadable: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainResult:
    """What a run came to.

    Attributes:
        steps: optimiser steps taken, of `total_steps` in the recipe.
        seconds: of training, without evaluation, over all resumes.
        data_wait_share: of these seconds, what was spent waiting for a batch.
    """

    steps: int
    total_steps: int
    seconds: float
    images_per_s: float
    data_wait_share: float
    num_unreadable: int


def total_steps(recipe: Recipe, num_images: int) -> int:
    return recipe.optim.epochs * recipe.optim.steps_per_epoch(num_images)
