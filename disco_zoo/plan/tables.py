"""A plan as tables, 100 columns wide, for a terminal and a pipe alike."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from disco_zoo.core.console import stdout_console
from disco_zoo.errors import counted
from disco_zoo.plan import words
from disco_zoo.plan.types import KINDS, Plan

WIDTH = 100


def print_plan(plan: Plan) -> None:
    """Print all tables on stdout, then what they rest on."""
    console = stdout_console(WIDTH)
    for table in (_run(plan), _flops(plan), _memory(plan), _disk(plan), _time(plan)):
        console.print(table)
        console.print()
    console.print("What this rests on")
    for number, sentence in enumerate(plan.assumptions, start=1):
        notes = Table.grid(padding=(0, 1))
        notes.add_row(f"{number:2}", sentence)
        console.print(notes)


def _run(plan: Plan) -> Table:
    recipe, work = plan.recipe, plan.work
    table = _table(f"{recipe.name}: the run", ("", ""), left=2)
    size = f"{recipe.student.image_size} px"
    table.add_row("student", f"{recipe.student.model}, {size}, by {recipe.method['name']}")
    if recipe.teacher is not None:
        own = f"{recipe.teacher_size} px"
        runs = f"{work.teacher_views:g} views of an image a step" if work.teacher_in_steps else "before training only"
        table.add_row("teacher", f"{recipe.teacher.source}, {own}, {runs}")
    table.add_row("images", f"{words.count(work.images)} ({plan.facts.said_by})")
    table.add_row("epochs, steps", f"{work.epochs}, {work.steps:,} of {work.batch_size} images")
    table.add_row("images seen", words.count(work.steps * work.batch_size))
    share = work.batch_size // work.devices // recipe.optim.accumulation_steps
    table.add_row("a forward", f"{share} images on each of {counted(work.devices, 'device')}, {recipe.optim.precision}")
    return table


def _flops(plan: Plan) -> Table:
    flops, parameters, work = plan.flops, plan.parameters, plan.work
    table = _table("Parameters and FLOPs", ("", "parameters", "an image", "a step", "the run", "share"))
    rows = [
        ("student, forward", parameters.student, flops.student_forward),
        ("student, backward", None, flops.student_backward),
        ("EMA twin", parameters.twin, flops.twin),
        ("teacher", parameters.teacher, flops.teacher),
        ("loss", parameters.other, flops.loss),
    ]
    for title, number, spent in rows:
        if number or spent:
            table.add_row(title, words.count(number) if number else "-", *_spent(spent, plan))
    table.add_section()
    table.add_row("in all", "", *_spent(flops.total, plan))
    if plan.cache is not None:
        table.add_row("in all, teacher cached", "", *_spent(flops.total - flops.teacher, plan))
        build = plan.cache.build_flops
        whole = flops.total * work.steps
        table.add_row("the cache's build", "", "", "", words.flops(build), f"{build / whole:.1%}")
    if work.views_before:
        before = work.views_before * work.teacher_view_flops
        table.add_row("teacher, before step 1", "", "", "", words.flops(before), "")
    return table


def _spent(spent: float, plan: Plan) -> Sequence[str]:
    return (
        words.flops(spent / plan.work.batch_size),
        words.flops(spent),
        words.flops(spent * plan.work.steps),
        f"{spent / plan.flops.total:.1%}",
    )


def _memory(plan: Plan) -> Table:
    memory = plan.memory
    table = _table("Peak memory of one process", ("at the peak", "size", "share"))
    for kind, size_bytes in memory.parts_bytes.items():
        table.add_row(KINDS[kind], words.size(size_bytes), f"{size_bytes / memory.tensors_bytes:.1%}")
    table.add_section()
    table.add_row("all tensors (a GPU's allocator)", words.size(memory.tensors_bytes), "100.0%")
    table.add_row("on a CPU, above the interpreter", words.size(memory.resident_bytes), "")
    return table


def _disk(plan: Plan) -> Table:
    table = _table("On disk", ("", "size", "of"))
    packed = plan.packed_bytes_per_image * plan.facts.distinct_images
    each = f"{words.count(plan.facts.distinct_images)} images of {words.size(plan.packed_bytes_per_image)}"
    table.add_row("packed shards (data pack, 256 px)", words.size(packed), each)
    if plan.cache is not None:
        table.add_row(
            "cache of the teacher",
            words.size(plan.cache.size_bytes),
            f"{words.count(plan.work.images)} x {plan.cache.slots} views x {plan.target_width} numbers, fp16",
        )
    return table


def _time(plan: Plan) -> Table:
    table = _table("Time", ("", "no cache", "cache"))
    runs = (plan.hours, plan.cached_hours)
    table.add_row("views of an image, one core", *[words.time(plan.view_cost.seconds_per_image)] * 2)
    if plan.hours is None:
        table.add_row("hours", "unknown: --calibrate 20", "or --device-tflops a100")
        return table
    table.add_row("a step of the networks", *(words.time(run.network_seconds) if run else "-" for run in runs))
    rates = (run.wanted_images_per_s(plan.work.batch_size) if run else None for run in runs)
    table.add_row(
        "so loaders must deliver", *("-" if rate is None else f"{words.count(rate)} images/s" for rate in rates)
    )
    needed = ("-" if number is None else f"{number:,.{1 if number >= 1 else 2}f}" for number in plan.cores)
    table.add_row("cores that takes", *needed)
    if plan.options.cores:
        with_cores = (words.time(run.step_seconds) if run else "-" for run in runs)
        table.add_row(f"a step with {plan.options.cores} cores", *with_cores)
    before = (run.before_seconds if run else 0.0 for run in runs)
    table.add_row("teacher before step 1", *(words.time(seconds) if seconds else "-" for seconds in before))
    table.add_row("the run", *(words.time(run.total_seconds) if run else "-" for run in runs))
    if plan.work.devices > 1:
        device_hours = (run and run.total_seconds * plan.work.devices / 3600 for run in runs)
        table.add_row("device-hours", *("-" if spent is None else f"{spent:,.1f}" for spent in device_hours))
    if plan.cached_hours is not None:
        table.add_row("the cache has paid for itself", "", _break_even(plan))
        table.add_row("times as fast", "1.00", f"{plan.hours.total_seconds / plan.cached_hours.total_seconds:.2f}")
    return table


def _break_even(plan: Plan) -> str:
    epochs = plan.break_even_epochs
    if epochs is None:
        return "never"
    return f"after {words.epochs(epochs)}" if plan.cache_pays else "not in this run"


def _table(title: str, heads: Sequence[str], left: int = 1) -> Table:
    table = Table(title=title, title_justify="left", show_header=any(heads))
    for number, head in enumerate(heads):
        table.add_column(head, justify="left" if number < left else "right", overflow="fold")
    return table
