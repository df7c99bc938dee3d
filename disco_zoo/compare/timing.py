"""Images per second of each method, timed in interleaved rounds so that other load affects all methods alike."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from disco_zoo.config.recipe import Recipe
from disco_zoo.core.console import StepProgress
from disco_zoo.data.dataset import ImageSource
from disco_zoo.training.calibration import seconds_per_step

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


def measure_speeds(
    recipes: Mapping[str, Recipe], source: ImageSource, device: str, rounds: int, timed_steps: int = TIMED_STEPS
) -> dict[str, Speed]:
    """Time a few steps of each recipe in turn, `rounds` times; in one process, which draws the views as well."""
    speeds: dict[str, list[float]] = {name: [] for name in recipes}
    with StepProgress("timing", rounds * len(recipes)) as progress:
        for turn in range(rounds):
            for place, (name, recipe) in enumerate(recipes.items(), start=1):
                seconds = seconds_per_step(recipe, source, device, timed_steps)
                speeds[name].append(min(recipe.optim.batch_size, len(source)) / seconds)
                progress.advance(turn * len(recipes) + place)
    first = next(iter(speeds.values()))
    ratios = {name: [own / base for own, base in zip(values, first, strict=True)] for name, values in speeds.items()}
    return {
        name: Speed(statistics.median(speeds[name]), statistics.median(of), (min(of), max(of)))
        for name, of in ratios.items()
    }
