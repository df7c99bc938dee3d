"""The assumptions behind a plan, one sentence each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from disco_zoo.plan import words
from disco_zoo.plan.calibration import WARM_UP_STEPS
from disco_zoo.plan.device_speeds import DEPTHWISE_SLOWDOWN
from disco_zoo.plan.stand_ins import DIFFERENT
from disco_zoo.plan.types import CPU_ALLOCATOR_FACTOR, MEASURED_FACTORS

if TYPE_CHECKING:
    from disco_zoo.plan.hours import CachePlan
    from disco_zoo.plan.types import Plan


def sentences(plan: Plan, packed_how: str, tflops: tuple[float, str] | None) -> Iterator[str]:
    """In the order of the tables.

    Args:
        packed_how: how the size of a packed image is known.
        tflops: of the device, and where that comes from; None without one.
    """
    yield f"Images: {plan.facts.said_by}."
    yield (
        "FLOPs: torch's counter on the recipe's own step, run on shapes without numbers; one multiply-add is two. "
        "Convolutions, matrix products and attention count; normalisation, activations and optimiser do not."
    )
    if plan.recipe.teacher is not None:
        yield "The teacher has random weights of its architecture; an SSL head of the catalog is taken to be MoCo-v2's."
    lowest, highest = MEASURED_FACTORS
    yield (
        "Memory: all tensors of a training step that are alive at once, for one process, without evaluation. On a CPU "
        f"malloc and kernels add to them: x {CPU_ALLOCATOR_FACTOR} ({lowest} to {highest} measured), and the "
        "interpreter comes on top. On a GPU cuDNN's workspace is not in it."
    )
    if plan.cache is not None:
        yield (
            f"Cache: {plan.cache.slots} views of each image, {plan.target_width} numbers a view in fp16. "
            f"{_break_even(plan, plan.cache)}"
        )
    yield f"Shards: {packed_how}."
    yield from _of_views(plan)
    yield from _of_hours(plan, tflops)


def _break_even(plan: Plan, cache: CachePlan) -> str:
    forwards = words.epochs(cache.even_forwards_epochs)
    if plan.cached_hours is None:
        return (
            f"Without it the teacher has been run as often after {forwards}: a count of its forwards alone, which "
            "leaves out that the build draws its views once more. When it has paid for itself in time is not known "
            "without a speed."
        )
    if plan.break_even_epochs is None:
        return "It never pays for itself in this training: an epoch is no faster with it."
    if not plan.cache_pays:
        return (
            "It does not pay for itself in this training: its build takes the hours that "
            f"{words.epochs(plan.break_even_epochs)} save."
        )
    return (
        f"It has paid for itself after {words.epochs(plan.break_even_epochs)}: hours of its build over hours that an "
        f"epoch saves. (The teacher alone has been run as often after {forwards}.)"
    )


def _of_views(plan: Plan) -> Iterator[str]:
    seen = plan.facts.sample.name if plan.facts.is_real else f"{DIFFERENT} generated JPEGs"
    yield (
        f"Loaders: all views of an image cost {words.time(plan.view_cost.seconds_per_image)} on one core here, "
        f"decoding included (median of {plan.view_cost.images_timed}, {seen}, in the page cache); cores add up."
    )


def _of_hours(plan: Plan, tflops: tuple[float, str] | None) -> Iterator[str]:
    if plan.hours is None:
        yield "Hours: none without --calibrate STEPS (times steps here) or --device-tflops SPEED."
        return
    if plan.calibration is not None:
        yield (
            f"Hours: median of {plan.calibration.steps} steps on this machine's {plan.options.device}, {WARM_UP_STEPS} "
            "more to warm up, batch in memory; the cached step replays random targets."
        )
        if tflops is not None:
            yield "--device-tflops is not used: the calibration says more."
    elif tflops is not None:
        yield (
            f"Hours: {tflops[0]:g} TFLOP/s a device ({tflops[1]}), of which {plan.options.utilisation:.0%} are taken "
            f"to be reached by dense networks, and {plan.options.utilisation / DEPTHWISE_SLOWDOWN:.0%} by networks "
            "with depthwise convolutions (from timm's throughputs on one RTX 3090). Only --calibrate knows."
        )
    if plan.options.devices > 1:
        yield f"{plan.options.devices} devices are taken to be {plan.options.devices} times as fast as one."
    if plan.options.cores is None:
        yield "Loaders are taken to keep up, whatever cores that takes; --cores says how many there are."
    else:
        yield f"{plan.options.cores} cores draw views; a step lasts as long as the slower of loaders and networks."
    if plan.cached_hours is not None:
        yield (
            "A cache's build lasts as long as the slower of its loaders and the teacher's forward."
            if plan.options.cores
            else "A cache's build is the teacher's forward alone: its loaders are taken to keep up as well."
        )
    waiting = "" if plan.options.cores else ", waiting for data"
    yield f"Not in the hours: evaluation, checkpoints{waiting}."
