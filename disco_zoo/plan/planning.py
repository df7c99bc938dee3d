"""Assembles a plan from counted, measured and assumed quantities, and says each assumption in a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from disco_zoo.config.optim import require_batches
from disco_zoo.config.recipe import Recipe
from disco_zoo.methods import METHODS
from disco_zoo.plan import words
from disco_zoo.plan.calibration import WARM_UP_STEPS, announce, require_memory, time_steps
from disco_zoo.plan.data_facts import DataFacts, data_facts, packed_bytes_per_image, time_views
from disco_zoo.plan.device_speeds import DEPTHWISE_SLOWDOWN, device_speed
from disco_zoo.plan.hours import (
    CachePlan,
    Work,
    cache_plan,
    hours,
    speed_of_device,
    speed_of_steps,
)
from disco_zoo.plan.stand_ins import DIFFERENT, NoiseSource, without_weights
from disco_zoo.plan.step_cost import StepCost, mean_step_cost
from disco_zoo.plan.types import CPU_ALLOCATOR_FACTOR, MEASURED_FACTORS, Plan, PlanOptions, predict_memory
from disco_zoo.training.task import total_steps

DEFAULT_CACHE_VIEWS = 8


def plan_recipe(recipe: Recipe, options: PlanOptions) -> Plan:
    """Count, measure and predict. Nothing is written and nothing downloaded.

    Raises:
        BadData: nobody knows how many images there are, or they cannot be read.
        BadRecipe: the batch does not fit the data, the devices or, to calibrate, free memory.
        UnknownName: a network or device that nobody knows.
    """
    facts = data_facts(recipe, options.data, options.images)
    require_batches(recipe.optim, facts.images, options.devices)
    tflops = device_speed(options.device_tflops, recipe.optim.precision) if options.device_tflops else None
    bare = without_weights(recipe)
    micro_batches = recipe.optim.accumulation_steps * options.devices
    counted = mean_step_cost(bare, NoiseSource(facts.images), recipe.optim.batch_size // micro_batches)
    work = _work(recipe, options, facts, counted, micro_batches)
    cache = _cache(recipe, work, counted.target_width)
    packed, packed_how = packed_bytes_per_image(facts)
    plan = Plan(
        recipe=recipe,
        options=options,
        facts=facts,
        work=work,
        parameters=counted.parameters,
        flops=work.flops,
        memory=predict_memory(counted, options.devices),
        target_width=counted.target_width,
        cache=cache,
        packed_bytes_per_image=packed,
        view_cost=time_views(recipe, facts.sample),
    )
    plan = _with_hours(plan, bare, tflops[0] if tflops else None)
    return replace(plan, assumptions=tuple(sentences(plan, packed_how, tflops)))


def _with_hours(plan: Plan, bare: Recipe, tflops: float | None) -> Plan:
    """From timed steps, else from a device's speed, else none."""
    options, calibration = plan.options, None
    if options.calibrate_steps:
        memory = plan.memory.tensors_bytes if options.device == "cuda" else plan.memory.resident_bytes
        require_memory(bare, memory, options.devices, options.device)
        announce(bare, plan.work, steps=options.calibrate_steps, device=options.device)
        calibration = time_steps(
            bare, plan.facts, steps=options.calibrate_steps, devices=options.devices, device=options.device
        )
        speed = speed_of_steps(plan.work, calibration.plain, calibration.replayed)
    elif tflops:
        speed = speed_of_device(plan.work, tflops, options.utilisation)
    else:
        return plan
    loading = plan.view_cost.seconds_per_image / options.cores if options.cores else 0.0
    return replace(
        plan,
        calibration=calibration,
        hours=hours(plan.work, speed, None, loading),
        cached_hours=hours(plan.work, speed, plan.cache, loading) if plan.cache else None,
    )


def _work(recipe: Recipe, options: PlanOptions, facts: DataFacts, counted: StepCost, micro_batches: int) -> Work:
    flops, views = counted.flops.times(micro_batches), counted.teacher_views
    per_view = flops.teacher / (recipe.optim.batch_size * views) if views else 0.0
    in_steps = views > 0 and not recipe.method.get("cached_teacher")
    with_companions = METHODS[recipe.method["name"]].takes_companions
    finds_bags = with_companions and not recipe.method.get("bags")
    before = facts.images if finds_bags or (views > 0 and not in_steps) else 0
    return Work(
        facts.images,
        total_steps(recipe, facts.images),
        recipe.optim.epochs,
        recipe.optim.batch_size,
        options.devices,
        flops if in_steps else replace(flops, teacher=0),
        in_steps,
        views,
        per_view,
        before,
        images_drawn=2 if with_companions else 1,
        student_slowdown=DEPTHWISE_SLOWDOWN if counted.student_is_depthwise else 1.0,
        teacher_slowdown=DEPTHWISE_SLOWDOWN if counted.teacher_is_depthwise else 1.0,
    )


def _cache(recipe: Recipe, work: Work, target_width: int) -> CachePlan | None:
    """Of the recipe's size, or of the usual one where it has none; None where nothing can be replayed."""
    teacher = recipe.teacher
    if teacher is None or not work.teacher_in_steps or teacher.bn_mode == "train":
        return None
    num_views = METHODS[recipe.method["name"]].num_views
    # Larger than the epochs can use it would only cost.
    views = teacher.cache_views or min(DEFAULT_CACHE_VIEWS, recipe.optim.epochs * num_views)
    return cache_plan(work, views, target_width, num_views=num_views, num_small=recipe.views["small_views"])


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
