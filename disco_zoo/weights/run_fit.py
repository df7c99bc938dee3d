"""Whether a run folder holds what an entry of the catalog describes, and not a look, other data or another input."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from disco_zoo.transforms.eval import eval_resize_size
from disco_zoo.zoo.catalog import Catalog, Checkpoint, Teacher
from disco_zoo.zoo.schema import MIN_ALLOWED_DIFFERENCE_POINTS, Input

OWN_ROW = "Train the recipe as it is, or give the run a row in a catalog of your own: DISCO_ZOO_CATALOG"


def run_fault(facts: Mapping[str, Any], entry: Checkpoint | Teacher, catalog: Catalog) -> str | None:
    """What `run.json` says that the entry does not, and what to type, as the end of a sentence; None if they agree."""
    if facts.get("name") != entry.name:
        hint = "Give its own name, or use the folder as it is: every command takes one for a model"
        return f"is of {facts.get('name')}, not of {entry.name}. {hint}"
    steps, total = facts.get("steps"), facts.get("total_steps")
    if steps is None or steps != total:
        return f"was trained for {steps} of {total} steps. Repeat its command with --resume and without --steps"
    if odd := [*_data_fault(facts.get("data"), entry, catalog), *_input_faults(facts.get("student"), entry.input)]:
        return f"differs from the catalog's {entry.name}: {'; '.join(odd)}. {OWN_ROW}"
    return None


def figures_fault(figures: Mapping[str, float], row: Checkpoint) -> str | None:
    """Why a student with these figures, in percent, is none of those that the row's are of; None if it may be one."""
    measured = [figure for figure in row.measured if figure.subject == "student" and figure.metric in figures]
    for figure in measured:
        allowed = figure.allowed_difference or MIN_ALLOWED_DIFFERENCE_POINTS
        if abs(figures[figure.metric] - figure.mean) > allowed:
            return f"its {figure.metric} is {figures[figure.metric]:.2f}, the catalog's {figure.mean:.2f}"
    return None if measured else "it states none of its own"


def _data_fault(data: Any, entry: Checkpoint | Teacher, catalog: Catalog) -> list[str]:
    if entry.data is None:
        return []
    images, dataset = data.get("images") if isinstance(data, dict) else None, catalog.datasets[entry.data]
    return [] if images == dataset.num_train else [f"{images} images ({dataset.title} has {dataset.num_train})"]


def _input_faults(student: Any, wanted: Input) -> list[str]:
    stated = dict(student) if isinstance(student, dict) else {}
    # What is set for training alone changes nothing of what is computed with the weights.
    options = {
        key: value for key, value in stated.get("options", {}).items() if not key.endswith(("_rate", "_momentum"))
    }
    size, resize_size = stated.get("image_size"), math.floor(wanted.size / wanted.crop_pct)
    if stated.get("resize_size") is None and isinstance(size, int):
        stated["resize_size"] = eval_resize_size(size)
    # A share of the size cannot name each pixel.
    if stated.get("resize_size") in (resize_size, resize_size + 1):
        stated["resize_size"] = resize_size
    ours = {"image_size": wanted.size, "resize_size": resize_size, "mean": wanted.mean, "std": wanted.std}
    odd = [f"{key} {stated.get(key)} (there {value})" for key, value in ours.items() if stated.get(key) != value]
    return [*odd, *([f"student.options {options} (there none)"] if options else [])]
