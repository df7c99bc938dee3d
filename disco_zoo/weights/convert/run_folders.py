"""A finished run folder of ours as a source of weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from disco_zoo.core.files import sha256_of
from disco_zoo.errors import BadCheckpoint
from disco_zoo.weights.convert.reading import shown

WEIGHTS, FACTS = "student.safetensors", "run.json"
# What run.json must say of its student.
_NEEDED = {"model", "architecture", "sha256", "mean", "std", "image_size", "resize_size"}


def read_run_facts(folder: Path) -> dict[str, Any]:
    """The student's facts of `run.json`, after its sha256 is compared with the weights.

    Returns:
        At least model, architecture (a timm name), sha256, mean, std, and image_size and resize_size in pixels.

    Raises:
        BadCheckpoint: the folder is no finished run, or its weights are other ones.
    """
    weights, facts, name = folder / WEIGHTS, folder / FACTS, shown(str(folder))
    if not weights.is_file() or not facts.is_file():
        raise BadCheckpoint(f"{name} is no finished run folder: it needs {FACTS} and {WEIGHTS}")
    try:
        student: dict[str, Any] = json.loads(facts.read_text(encoding="utf-8"))["student"]
        missing = _NEEDED - set(student)
    except (ValueError, LookupError, TypeError, OSError) as error:
        raise BadCheckpoint(f"{name}/{FACTS} does not describe a student. Repeat the run that wrote it") from error
    if missing:
        raise BadCheckpoint(f"{name}/{FACTS} does not say the student's {', '.join(sorted(missing))}")
    if sha256_of(weights) != student["sha256"]:
        raise BadCheckpoint(f"{name}/{WEIGHTS} is not the file its {FACTS} describes (sha256 differs)")
    return student
