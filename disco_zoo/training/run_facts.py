"""What `run.json` holds of a pretraining."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict, cast

from disco_zoo.config.recipe import Recipe
from disco_zoo.config.validation import OWN_DATA
from disco_zoo.core.claimed_dir import FACTS
from disco_zoo.core.environment import hardware, now, versions
from disco_zoo.core.files import sha256_of
from disco_zoo.core.process import peak_memory_mib
from disco_zoo.data.summary import look_facts
from disco_zoo.models.teacher import Teacher
from disco_zoo.training.build import Parts, count_parameters
from disco_zoo.training.monitoring.online_health import health_facts
from disco_zoo.training.pretraining import Pretraining
from disco_zoo.training.replay import Replay
from disco_zoo.training.run_data import Data
from disco_zoo.training.run_folder import RunFolder
from disco_zoo.zoo.catalog import load_catalog


class DataFacts(TypedDict, total=False):
    """The training images. `is_recipes` is what version 0.1 called `matches_recipe`."""

    id: str
    matches_recipe: bool  # whether they come from the recipe's own source
    is_recipes: bool
    source: str
    split: str
    images: int
    fingerprint: str
    look: dict[str, Any]


class ExtraDataFacts(TypedDict):
    id: str
    images: int
    repeats: int
    fingerprint: str


class TeacherFacts(TypedDict):
    title: str
    sha256: str | None
    supervised: bool | None
    caches: list[dict[str, Any]] | None


class StudentFacts(TypedDict):
    model: str
    architecture: str  # timm's name
    options: dict[str, Any]  # of timm.create_model; runs of before this was kept lack them
    file: str
    sha256: str
    size_bytes: int
    parameters: int
    image_size: int
    resize_size: int | None
    mean: list[float]
    std: list[float]
    inherited_tensors: dict[str, Any] | None


class _RequiredFacts(TypedDict):
    name: str
    command: str
    started: str
    ended: str
    seed: int
    recipe_sha256: str
    steps: int
    total_steps: int
    training_seconds: float
    images_per_s: float
    data_wait_share: float
    peak_memory_mib: float | None
    unreadable_images: int
    health: dict[str, Any] | None
    data: DataFacts
    test_data: dict[str, Any] | None
    extra_data: ExtraDataFacts | None
    bank: dict[str, Any] | None
    teacher: TeacherFacts | None
    student: StudentFacts
    versions: dict[str, Any]
    hardware: dict[str, Any]


class RunFacts(_RequiredFacts, total=False):
    """All of `run.json`; `figures` are there where the student was measured, in percent by metric."""

    figures: dict[str, float]


def images_of(facts: Mapping[str, Any]) -> tuple[str, str | None]:
    """Fingerprints of the training images and of extra ones, as `Data.fingerprints` has them."""
    return facts["data"]["fingerprint"], (facts.get("extra_data") or {}).get("fingerprint")


def read_run_facts(folder: RunFolder) -> RunFacts:
    return cast(RunFacts, folder.read_json(FACTS))


def run_facts(
    task: Pretraining, parts: Parts, data: Data, folder: RunFolder, *, command: str, started: str, resumed: bool
) -> RunFacts:
    """The facts of a run whose student is exported."""
    recipe, position = task.recipe, task.position
    former = folder.read_json(FACTS) if resumed else {}
    return {
        "name": recipe.name,
        "command": command,
        "started": former.get("started", started),
        "ended": now(),
        "seed": recipe.seed,
        "recipe_sha256": recipe.digest(),
        "steps": position.step,
        "total_steps": task.total_steps,
        "training_seconds": round(position.seconds, 1),
        "images_per_s": round(position.images_per_s(recipe.optim.batch_size), 2),
        "data_wait_share": round(position.data_wait_share, 4),
        "peak_memory_mib": _peak_memory(former.get("peak_memory_mib"), peak_memory_mib(task.device)),
        "unreadable_images": len(position.unreadable),
        "health": health_facts(folder.path, task.health),
        "data": _data_facts(recipe, data),
        "test_data": None if data.test is None else look_facts(data.test),
        "extra_data": _extra_facts(recipe, data),
        "bank": {"source": data.bank.name, "images": len(data.bank)} if data.has_labels else None,
        "teacher": _teacher_facts(parts.teacher, task.replay),
        "student": _student_facts(recipe, parts, folder.student),
        "versions": versions(),
        "hardware": hardware(task.device),
    }


def _peak_memory(*peaks: float | None) -> float | None:
    """Of this process, which trains and draws views unless there are workers, over all resumes."""
    return round(max(known), 1) if (known := [peak for peak in peaks if peak is not None]) else None


def _data_facts(recipe: Recipe, data: Data) -> DataFacts:
    return {
        "id": recipe.data.id,
        # Another source than the recipe's is not the data set of that name.
        "matches_recipe": recipe.data.source in (None, data.train.name),
        "source": data.train.name,
        "split": data.train.split,
        "images": len(data.train),
        "fingerprint": data.train.fingerprint(),
        "look": look_facts(data.train),
    }


def _extra_facts(recipe: Recipe, data: Data) -> ExtraDataFacts | None:
    """The extra training images beside the main data."""
    if data.extra is None:
        return None
    return {
        "id": recipe.data.extra_id or OWN_DATA,
        "images": len(data.extra.extra),
        "repeats": data.extra.repeats,
        "fingerprint": data.extra.extra.fingerprint(),
    }


def _teacher_facts(teacher: Teacher | None, replay: Replay | None) -> TeacherFacts | None:
    if teacher is None:
        return None
    return {
        "title": teacher.title,
        "sha256": teacher.loaded.sha256,
        "supervised": teacher.loaded.supervised,
        "caches": replay.facts() if replay else None,
    }


def _student_facts(recipe: Recipe, parts: Parts, file: Path) -> StudentFacts:
    return {
        "model": recipe.student.model,
        "architecture": native_architecture(recipe.student.model),
        "options": dict(recipe.student.options),
        "file": file.name,
        "sha256": sha256_of(file),
        "size_bytes": file.stat().st_size,
        "parameters": count_parameters(parts.student.backbone),
        "image_size": recipe.eval_size,
        "resize_size": recipe.eval.resize_size,
        "mean": list(recipe.student.mean),
        "std": list(recipe.student.std),
        "inherited_tensors": None if parts.inheritance is None else vars(parts.inheritance),
    }


def native_architecture(model: str) -> str:
    """timm's own name for a zoo model, so that the file loads without this package."""
    architectures = load_catalog().architectures
    return architectures[model].native or model if model in architectures else model


def matches_recipe(data: DataFacts) -> bool:
    """Whether the images come from the recipe's own source; runs of before this was kept are taken to."""
    return data.get("matches_recipe", data.get("is_recipes", True))
