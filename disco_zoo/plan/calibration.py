"""Times real steps of a recipe on this machine, alternately with the teacher's forward and with cached embeddings."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch

from disco_zoo.config.recipe import Recipe
from disco_zoo.core.console import StepProgress, console, duration
from disco_zoo.core.process import available_bytes
from disco_zoo.errors import BadRecipe, counted
from disco_zoo.methods.base import Batch, batch_on
from disco_zoo.plan import words
from disco_zoo.plan.data_facts import DataFacts
from disco_zoo.plan.device_speeds import DEFAULT_UTILIZATION
from disco_zoo.plan.hours import Work, speed_of_device
from disco_zoo.plan.stand_ins import NoiseSource, build_weightless
from disco_zoo.training.accelerator import require_precision
from disco_zoo.training.build import Parts
from disco_zoo.training.calibration import Neighbor, take_step
from disco_zoo.training.optim import build_optimizer
from disco_zoo.training.step_settings import apply_step_settings, autocast, recipes_by_size
from disco_zoo.transforms.view_dataset import ViewDataset, collate_views, view_plan

WARM_UP_STEPS = 3
_PROBE_SIDE, _PROBE_PRODUCTS = 1024, 8


@dataclass(frozen=True)
class StepSeconds:
    """Median seconds of a step of one device, its batch in memory.

    Attributes:
        replayed: with what the teacher said read from memory; None without a teacher.
    """

    steps: int
    plain: float
    replayed: float | None


def time_steps(recipe: Recipe, facts: DataFacts, *, steps: int, devices: int, device: str) -> StepSeconds:
    """Train for `steps` steps after some to warm up, from random weights; nothing is written.

    Where the student's image size changes, so many at each size, and their mean over the run.

    Args:
        recipe: from `without_weights`.
        devices: that share a batch; this one trains its share.

    Raises:
        BadRecipe: the device does not compute in the recipe's precision.
    """
    require_precision(recipe, device)
    timed = [
        (_time_at_size(one, facts, steps, devices, device), share)
        for one, share in recipes_by_size(recipe, facts.images)
    ]
    plain = sum(share * seconds["plain"] for seconds, share in timed)
    replayed = [share * seconds["replayed"] for seconds, share in timed if "replayed" in seconds]
    return StepSeconds(steps, plain, sum(replayed) if replayed else None)


def probe_tflops(device: str) -> float:
    """TFLOP/s of a few products of float32 matrices here: a fraction of a second, for a rough idea of a step's time."""
    square = torch.randn(_PROBE_SIDE, _PROBE_SIDE, device=device)
    _ = square @ square
    begun = _clock(device)
    for _ in range(_PROBE_PRODUCTS):
        _ = square @ square
    return _PROBE_PRODUCTS * 2 * _PROBE_SIDE**3 / (_clock(device) - begun) / 1e12


def announce(recipe: Recipe, work: Work, *, steps: int, device: str) -> None:
    """Say on stderr what `time_steps` is about to do and, from the FLOPs of a step, very roughly how long it takes."""
    speed = speed_of_device(work, probe_tflops(device), DEFAULT_UTILIZATION)
    sizes, seconds, kinds = len(recipes_by_size(recipe, work.images)), speed.step_seconds, ""
    if recipe.teacher is not None:
        seconds += speed.cached_step_seconds or 0.0
        kinds = ", each with the teacher's forward and without it,"
    console.print(
        f"Calibration on {device}: {counted(steps, 'step')} of {counted(work.batch_size // work.devices, 'image')} and "
        f"{WARM_UP_STEPS} to warm up{f' at each of {sizes} image sizes' if sizes > 1 else ''}{kinds} from random "
        f"weights; very roughly {duration(sizes * (steps + WARM_UP_STEPS) * seconds)}, by FLOPs",
        soft_wrap=True,
    )


def _time_at_size(recipe: Recipe, facts: DataFacts, steps: int, devices: int, device: str) -> dict[str, float]:
    """Median seconds of a step by kind."""
    parts = build_weightless(recipe, NoiseSource(facts.images), device)
    apply_step_settings(recipe, parts)
    batch = _batch(recipe, parts, facts, recipe.optim.batch_size // recipe.optim.accumulation_steps // devices, device)
    kinds = {"plain": batch}
    if parts.teacher is not None:
        rows = [torch.randn(len(batch.index), parts.teacher.embed_dim, device=device) for _ in batch.views]
        kinds["replayed"] = Batch(batch.views, batch.index, rows)
    # A tiny rate: random weights must not diverge.
    optimizer = build_optimizer(parts.method.parameters(), recipe.optim, lr=1e-8)
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    with StepProgress("calibration", steps + WARM_UP_STEPS) as progress:
        for step in range(steps + WARM_UP_STEPS):
            for kind, shown in kinds.items():
                seconds[kind].append(_timed_step(recipe, parts, optimizer, shown, device))
            progress.advance(step + 1, unit="steps")
    return {kind: statistics.median(values[WARM_UP_STEPS:]) for kind, values in seconds.items()}


def require_memory(recipe: Recipe, needed_bytes: float, devices: int, device: str) -> None:
    """Refuse steps that would not fit: the system ends a process that outgrows it without a word.

    Raises:
        BadRecipe: less is free than a step needs.
    """
    free_bytes = _free_bytes(device)
    if free_bytes is not None and needed_bytes > free_bytes:
        images = recipe.optim.batch_size // recipe.optim.accumulation_steps
        shares = [share for share in range(devices, images + 1) if images % share == 0]
        fitting = next((s for s in shares if needed_bytes * devices <= free_bytes * s), images)
        raise BadRecipe(
            f"--calibrate: a forward of {images // devices} images needs {words.size(needed_bytes)}, "
            f"{words.size(free_bytes)} are free. Calibrate a share of the batch, e.g. --devices {fitting}"
        )


def _free_bytes(device: str) -> int | None:
    """Free bytes on the device; None where unknown."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    return available_bytes() if device == "cpu" else None


def _timed_step(recipe: Recipe, parts: Parts, optimizer: torch.optim.Optimizer, batch: Batch, device: str) -> float:
    clock = _clock(device)
    micro_batches = [batch] * recipe.optim.accumulation_steps
    take_step(parts.method, optimizer, micro_batches, precision=autocast(recipe, device))
    return _clock(device) - clock


def _clock(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


def _batch(recipe: Recipe, parts: Parts, facts: DataFacts, images: int, device: str) -> Batch:
    """Views of the first images, drawn before the clock starts."""
    method, source = parts.method, facts.sample
    companions = Neighbor(len(source)) if method.takes_companions else None
    plan = view_plan(recipe.views, recipe.view_size, method.num_views)
    dataset = ViewDataset(source, plan, seed=recipe.seed, epoch=0, companions=companions)
    return batch_on(device, collate_views([dataset[number % len(source)] for number in range(images)]))
