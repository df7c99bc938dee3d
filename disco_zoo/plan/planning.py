"""Assembles a plan from counted, measured and assumed quantities."""

from __future__ import annotations

from dataclasses import replace

from disco_zoo.config.optim import require_batches
from disco_zoo.config.recipe import Recipe
from disco_zoo.methods import METHODS
from disco_zoo.plan.assumptions import sentences
from disco_zoo.plan.calibration import require_memory, time_steps
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
from disco_zoo.plan.stand_ins import NoiseSource, without_weights
from disco_zoo.plan.step_cost import StepCost, mean_step_cost
from disco_zoo.plan.types import Plan, PlanOptions, predict_memory
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
    finds_bags = METHODS[recipe.method["name"]].takes_companions and not recipe.method.get("bags")
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
