"""Recipes: one strict, flat YAML per run. Every fault is reported at once, with its path and a suggestion."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError

from disco_zoo.config.inheritance import MergedRecipe, name_file, read_merged
from disco_zoo.config.optim import OptimSection, check_optim
from disco_zoo.config.sections import (
    Deviations,
    Pixels,
    StudentSection,
    check_student,
    check_teacher,
    check_views,
    with_one_width,
)
from disco_zoo.config.validation import check_across_sections, resolve_named_sections
from disco_zoo.core.files import PACKAGE_DIR, user_path
from disco_zoo.core.schema import Section, explain
from disco_zoo.core.yaml_io import dump_yaml, read_value
from disco_zoo.errors import BadRecipe, UnknownName, did_you_mean, one_line, shown
from disco_zoo.protocols.linear import IMAGENET_STD

_SILENT_SECTIONS = {"log", "target", "cost", "reference"}
_SILENT_KEYS = (("student", "gradient_checkpointing"), ("optim", "compile"))
# Where they say what was so before there were such keys, they count for nothing: runs begun then go on.
_CAME_LATER = {
    "student": ("image_sizes", "weight_init"),
    "teacher": ("cache_views", "cache_seed", "cache_engine", "std"),
    "data": ("streams", "shuffle_buffer", "stream_images", "extra_id", "extra_source", "extra_repeats"),
    "optim": ("last_batch", "restarts"),
}


class TeacherSection(Section):
    source: str
    pretrained: bool = True
    image_size: Pixels | None = None  # None: the student's
    features: Literal["head", "backbone"] | None = None  # None: the head where the teacher has one
    bn_mode: Literal["eval", "train"] = "eval"
    std: Deviations | None = None  # of the teacher's input; None: the source's own
    # Views of each image whose embeddings are computed once and replayed; None: new views, and a forward, each epoch.
    cache_views: PositiveInt | None = None
    cache_seed: int | None = Field(default=None, ge=0, lt=2**63)  # of the cached views; None: the run's, a cache a seed
    cache_engine: Literal["torch", "onnxruntime"] = (
        "torch"  # what computes them on a CPU; the latter needs extra export
    )


class DataSection(Section):
    id: str  # of the catalog's datasets, or "custom" for images of one's own
    source: str | None = None  # None: must come from --data
    eval_source: str | None = None  # None: the test split of `source`
    max_images: PositiveInt | None = None  # train on a random choice of so many; None: on all
    # More images to train on, never to measure on: which (as `id`), where (from here, or beside --data), and how often
    # an epoch shows each of them.
    extra_id: str | None = None
    extra_source: str | None = None
    extra_repeats: PositiveInt = 1
    max_unreadable_images: NonNegativeInt = 100
    # Of streams (wds/, hfids/): logical streams that a batch draws from in turn, images that wait in all of their
    # shuffle buffers together, and the images of an epoch where the source does not say.
    streams: PositiveInt = 16
    shuffle_buffer: PositiveInt = 4096
    stream_images: PositiveInt | None = None


class LogSection(Section):
    log_every_steps: int = Field(default=10, ge=1)
    checkpoint_every_steps: int = Field(default=200, ge=1)
    knn_every_epochs: float = Field(default=1.0, ge=0)  # fractions allowed; 0: no online kNN
    # of the training split, drawn by the seed; the test split is cut to as many
    knn_bank_images: PositiveInt = 5000
    # in which effective rank and agreement with the teacher are watched, without labels; 0: they are not
    health_images: NonNegativeInt = 512

    def knn_every_steps(self, steps_per_epoch: int) -> int:
        """Steps between two kNN on the way, at least one; 0 for none."""
        return max(1, round(self.knn_every_epochs * steps_per_epoch)) if self.knn_every_epochs else 0


class EvalSection(Section):
    image_size: Pixels | None = None  # None: the student's
    resize_size: Pixels | None = None  # None: image_size * 256 / 224
    linear: str = "fast"


class ReproduceSection(Section):
    baseline: str | None = None  # a recipe that takes the same student steps from the same start


class Recipe(Section):
    """A whole run. `views` and `method` are checked against the signature of what they name."""

    name: str
    target: str
    cost: str
    reference: str
    preset: Literal["fixed", "official"] = "fixed"
    seed: int = Field(default=0, ge=0, lt=2**63)
    student: StudentSection
    teacher: TeacherSection | None = None
    data: DataSection
    views: dict[str, Any]
    method: dict[str, Any]
    optim: OptimSection
    log: LogSection = LogSection()
    eval: EvalSection = EvalSection()
    reproduce: ReproduceSection = ReproduceSection()

    @property
    def view_size(self) -> int:
        """Side in pixels at which views are drawn: `views.size`, else the largest input size of student and teacher."""
        if own := self.views.get("size"):
            return int(own)
        sizes = [size for phase in self.student.image_sizes.values() for size in phase]
        return max(self.student.image_size, self.teacher_size, *sizes)

    @property
    def teacher_size(self) -> int:
        """The teacher's input size in pixels; the student's where the recipe has none."""
        return (self.teacher.image_size if self.teacher else None) or self.student.image_size

    @property
    def cache_seed(self) -> int:
        """Of the views that a teacher cache holds: with one of its own, runs of all seeds replay one cache."""
        own = self.teacher.cache_seed if self.teacher else None
        return self.seed if own is None else own

    @property
    def eval_size(self) -> int:
        """Side in pixels at which the student is measured."""
        return self.eval.image_size or self.student.image_size

    def resize_at(self, size: int) -> int | None:
        """Shorter side in pixels before EVAL's crop of `size`, in proportion to `eval`'s; None where that has none."""
        resize = self.eval.resize_size
        return None if resize is None else round(resize * size / self.eval_size)

    @property
    def lr(self) -> float:
        return self.optim.base_lr * self.optim.batch_size / 256

    def as_dict(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    def as_yaml(self) -> str:
        """The full resolved recipe, defaults included."""
        return dump_yaml(self.as_dict())

    def decisive(self) -> dict[str, Any]:
        """Everything that decides the weights: not how often it logs, nor at what cost it computes.

        A run may go on checkpointed where memory did not suffice, or compiled, as it may on another device.
        """
        values = {key: value for key, value in self.as_dict().items() if key not in _SILENT_SECTIONS}
        for section, key in _SILENT_KEYS:
            del values[section][key]
        for name, drop in (("views", {"size": None}), ("method", {"both_views": False})):
            values[name] = {key: value for key, value in values[name].items() if key not in drop or value != drop[key]}
        for name, keys in _CAME_LATER.items():
            given: Section | None = getattr(self, name)
            if given is None:
                continue
            for key in keys:
                default = type(given).model_fields[key].get_default(call_default_factory=True)
                if getattr(given, key) == default:
                    del values[name][key]
        return values

    def digest(self) -> str:
        """Identifies the run by all that is decisive."""
        return hashlib.sha256(json.dumps(self.decisive(), sort_keys=True).encode()).hexdigest()


def recipes_folder() -> Path:
    """Where recipes lie: inside the installed package, or beside it in a checkout."""
    installed = PACKAGE_DIR / "recipes"
    return installed if installed.is_dir() else PACKAGE_DIR.parent / "recipes"


def bundled_recipes() -> dict[str, Path]:
    """Every recipe on disk by its full name, `scale/checkpoint`; what recipes share, in `parts/`, is none."""
    folder = recipes_folder()
    names = {path.relative_to(folder).as_posix().removesuffix(".yaml"): path for path in sorted(folder.rglob("*.yaml"))}
    return {name: path for name, path in names.items() if not name.startswith("parts/")}


def find_recipe(name: str) -> Path:
    """Find a recipe by path, by `scale/name`, or by name where only one scale has it."""
    if name.endswith((".yaml", ".yml")):
        path = user_path(name)
        if os.path.isfile(path):  # unlike Path's, it never raises
            return path
        raise BadRecipe(f"recipe {shown(str(path))} does not exist. The bundled ones: disco-zoo train --list")
    known = bundled_recipes()
    found = [full for full in known if name in (full, full.split("/")[-1])]
    if len(found) > 1:
        raise UnknownName(f"several recipes are called '{name}'. Type one of: {', '.join(found)}")
    if not found:
        hint = did_you_mean(name, [*known, *(full.split("/")[-1] for full in known)])
        hint = hint or f" {len(known)} are bundled: disco-zoo train --list"
        raise UnknownName(f"unknown recipe '{shown(name)}'.{hint}")
    return known[found[0]]


def load_recipe(name: str, overrides: Iterable[str] = ()) -> Recipe:
    """Load a recipe by name or path with all it extends and apply `key=value` overrides, checked the same way.

    Raises:
        UnknownName: no such recipe.
        BadRecipe: all faults of files and overrides together.
    """
    path = find_recipe(name)
    merged = read_merged(path, recipes_folder())
    merged.faults += _apply_overrides(merged, overrides)
    _apply_preset(merged)
    return parse_recipe(merged.values, origin=path.name, faults=merged.faults, inherited=merged.inherited)


def with_seed(overrides: Iterable[str], seed: int | None) -> list[str]:
    """Overrides and a seed that was given beside them."""
    return [*overrides, *([] if seed is None else [f"seed={seed}"])]


def parse_recipe(
    values: dict[str, Any], *, origin: str, faults: Iterable[str] = (), inherited: Mapping[str, str] | None = None
) -> Recipe:
    """Validate a recipe's values.

    Args:
        values: sections and their keys.
        origin: what the message calls the recipe.
        faults: found earlier, to be reported along with the new ones.
        inherited: "section.key" of values from other files, and the file that a fault of theirs is to name.

    Raises:
        BadRecipe: all faults together.
    """
    # Dates and the like, which YAML makes of text by a tag, become text again.
    values = with_one_width(json.loads(json.dumps(values, default=str)))
    messages = list(faults)
    recipe: Recipe | None = None
    try:
        recipe = Recipe.model_validate_json(json.dumps(values))
    except ValidationError as error:
        messages += explain(error, Recipe)
    sections, faults_of_named = resolve_named_sections(values)
    messages += faults_of_named + check_across_sections(values)
    messages += check_student(values) + check_optim(values) + check_views(values) + check_teacher(values)
    if messages or recipe is None:
        raise BadRecipe(
            f"{origin}: " + "; ".join(name_file(one_line(message), inherited or {}) for message in messages)
        )
    return recipe.model_copy(update=sections)


def method_options(recipe: Recipe) -> dict[str, Any]:
    """Keyword arguments of the method without its name."""
    return {key: value for key, value in recipe.method.items() if key != "name"}


def _apply_overrides(merged: MergedRecipe, overrides: Iterable[str]) -> list[str]:
    """Apply `section.key=value` overrides; return the faults of their syntax."""
    faults = []
    for override in overrides:
        path, equals, text = override.partition("=")
        *parents, key = path.strip().split(".")
        if not equals or not key:
            faults.append(f"--set {override}: write --set section.key=value")
            continue
        if len(parents) > 1:
            section, name, *inner = path.strip().split(".")
            whole = functools.reduce(lambda value, part: f"{{{part}: {value}}}", reversed(inner), text)
            faults.append(f"--set {override}: write --set '{section}.{name}={whole}'")
            continue
        if not parents:
            merged.forget(key)
            merged.lay_over({key: read_value(text)}, None)
            continue
        section = merged.values.setdefault(parents[0], {})
        if not isinstance(section, dict):
            faults.append(f"--set {override}: '{parents[0]}' has no keys below it")
            continue
        section[key] = read_value(text)
        merged.note(path.strip())
    return faults


def _apply_preset(merged: MergedRecipe) -> None:
    """`preset: official` fills in the method's named quirks wherever files and overrides are silent.

    A file that the recipe extends counts like the recipe itself: what it says is not silence.
    """
    from disco_zoo.methods import METHODS

    values = merged.values
    method = values.get("method")
    name = method.get("name") if isinstance(method, dict) else None
    if values.get("preset") != "official" or not isinstance(name, str) or name not in METHODS:
        return
    for path, value in METHODS[name].OFFICIAL.items():
        section, key = path.split(".")
        if path not in merged.explicit and isinstance(values.get(section), dict) and _is_a_quirk_of(path, values):
            values[section][key] = value


def _is_a_quirk_of(path: str, values: Mapping[str, Any]) -> bool:
    """Q24 rounds ImageNet's standard deviation: a teacher of the catalog that has another one keeps it."""
    from disco_zoo.zoo.catalog import load_catalog

    row = load_catalog().teachers.get(str(values["teacher"].get("source"))) if path == "teacher.std" else None
    return row is None or tuple(row.input.std) == IMAGENET_STD
