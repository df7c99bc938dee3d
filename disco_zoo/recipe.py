"""Recipes: one strict, flat YAML per run. Every fault is reported at once, with its path and a suggestion."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError

from disco_zoo.errors import BadRecipe, UnknownName, did_you_mean
from disco_zoo.recipe_check import (
    Section,
    check_across_sections,
    check_named_sections,
    explain,
    with_defaults,
)
from disco_zoo.recipe_yaml import dump_yaml, read_value, read_yaml

Channels = tuple[float, float, float]
Pixels = Annotated[int, Field(ge=16)]


class StudentSection(Section):
    model: str
    image_size: Pixels
    mean: Channels = (0.485, 0.456, 0.406)
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.229, 0.224, 0.225)
    head: Literal["mlp", "linear", "none"] = "mlp"
    embed_dim: PositiveInt | None = None  # None: the teacher's, or 128 without a teacher
    head_hidden_dim: PositiveInt | None = 2048  # None: the feature width (MoCo-v2's rule); DisCo fixes 2048
    init: Literal["random", "inherit", "checkpoint"] = "random"
    # inherit: a teacher source, default teacher.source; checkpoint: a safetensors file
    init_from: str | None = None
    recalibration_images: PositiveInt = 1024  # inherit only: images that set BatchNorm's statistics


class TeacherSection(Section):
    source: str
    pretrained: bool = True
    image_size: Pixels | None = None  # None: the student's
    features: Literal["head", "backbone"] = "head"
    bn_mode: Literal["eval", "train"] = "eval"


class DataSection(Section):
    id: str  # of the catalog's datasets
    source: str | None = None  # None: must come from --data
    eval_source: str | None = None  # None: the test split of `source`
    max_unreadable_images: NonNegativeInt = 100


class OptimSection(Section):
    optimizer: Literal["sgd", "adamw"]
    batch_size: int = Field(ge=1)  # images a step, over all processes and accumulated micro-batches
    base_lr: float = Field(gt=0)  # for 256 images; the rate used is base_lr * batch_size / 256
    weight_decay: float = Field(ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)  # SGD only
    schedule: Literal["cosine_epoch", "cosine_step", "constant"]
    warmup_epochs: float = Field(default=0.0, ge=0)
    epochs: int = Field(ge=1)
    accumulation_steps: int = Field(default=1, ge=1)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    sync_bn: bool = False


class LogSection(Section):
    log_every_steps: int = Field(default=10, ge=1)
    checkpoint_every_steps: int = Field(default=200, ge=1)
    knn_every_epochs: float = Field(default=1.0, ge=0)  # fractions allowed; 0: no online kNN
    # of the training split, drawn by the seed; the test split is cut to as many
    knn_bank_images: PositiveInt = 5000


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
        """Side in pixels at which views are drawn: the larger of what student and teacher look at."""
        teacher = self.teacher.image_size if self.teacher else None
        return max(self.student.image_size, teacher or 0)

    @property
    def lr(self) -> float:
        return self.optim.base_lr * self.optim.batch_size / 256

    def as_dict(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    def as_yaml(self) -> str:
        """The full resolved recipe, defaults included."""
        return dump_yaml(self.as_dict())

    def digest(self) -> str:
        """Identifies the run: everything that decides its weights, but not how often it logs."""
        silent = {"log", "target", "cost", "reference"}
        decisive = {key: value for key, value in self.as_dict().items() if key not in silent}
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def recipes_folder() -> Path:
    """Where recipes lie: inside the installed package, or beside it in a checkout."""
    installed = Path(__file__).parent / "recipes"
    return installed if installed.is_dir() else Path(__file__).parents[1] / "recipes"


def bundled_recipes() -> dict[str, Path]:
    """Every recipe on disk by its full name, `scale/checkpoint`."""
    folder = recipes_folder()
    paths = sorted(folder.rglob("*.yaml"))
    return {path.relative_to(folder).as_posix().removesuffix(".yaml"): path for path in paths}


def find_recipe(name: str) -> Path:
    """Find a recipe by path, by `scale/name`, or by name where only one scale has it."""
    path = Path(name).expanduser()
    if path.suffix in {".yaml", ".yml"}:
        if path.is_file():
            return path
        raise BadRecipe(f"recipe {path} does not exist. The bundled ones: {', '.join(bundled_recipes())}")
    known = bundled_recipes()
    found = [full for full in known if name in (full, full.split("/")[-1])]
    if len(found) > 1:
        raise UnknownName(f"several recipes are called '{name}'. Type one of: {', '.join(found)}")
    if not found:
        hint = did_you_mean(name, [*known, *(full.split("/")[-1] for full in known)])
        raise UnknownName(f"unknown recipe '{name}'." + (hint or f" There are: {', '.join(known)}"))
    return known[found[0]]


def load_recipe(name: str, overrides: Iterable[str] = ()) -> Recipe:
    """Load a recipe by name or path and apply `key=value` overrides, checked the same way.

    Raises:
        UnknownName: no such recipe.
        BadRecipe: all faults of file and overrides together.
    """
    path = find_recipe(name)
    try:
        values, faults = read_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadRecipe(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise BadRecipe(f"{path} holds no keys")
    explicit = {f"{s}.{k}" for s, section in values.items() if isinstance(section, dict) for k in section}
    faults += _apply_overrides(values, overrides, explicit)
    _apply_preset(values, explicit)
    return parse_recipe(values, origin=path.name, faults=faults)


def parse_recipe(values: dict[str, Any], *, origin: str, faults: Iterable[str] = ()) -> Recipe:
    """Validate a recipe's values; `faults` found earlier are reported along with the new ones.

    Raises:
        BadRecipe: all faults together.
    """
    # Dates and the like, which YAML makes of plain text, become text again.
    values = json.loads(json.dumps(values, default=str))
    messages = list(faults)
    recipe: Recipe | None = None
    try:
        recipe = Recipe.model_validate_json(json.dumps(values))
    except ValidationError as error:
        messages += explain(error, Recipe)
    messages += check_named_sections(values) + check_across_sections(values)
    if messages or recipe is None:
        raise BadRecipe(f"{origin}: " + "; ".join(messages))
    sections = {"views": recipe.views, "method": recipe.method}
    return recipe.model_copy(update={name: with_defaults(name, given) for name, given in sections.items()})


def view_options(recipe: Recipe) -> dict[str, Any]:
    """Arguments of the view recipe without its name."""
    return {key: _tuples(value) for key, value in recipe.views.items() if key != "recipe"}


def method_options(recipe: Recipe) -> dict[str, Any]:
    """Keyword arguments of the method without its name."""
    return {key: value for key, value in recipe.method.items() if key != "name"}


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _apply_overrides(values: dict[str, Any], overrides: Iterable[str], explicit: set[str]) -> list[str]:
    """Set `section.key=value`; return what was wrong with the overrides themselves."""
    faults = []
    for override in overrides:
        path, equals, text = override.partition("=")
        *parents, key = path.strip().split(".")
        if not equals or not key or len(parents) > 1:
            faults.append(f"--set {override}: write --set section.key=value")
            continue
        target = values
        for parent in parents:
            if target.get(parent) is None:
                target[parent] = {}
            target = target[parent]
        if not isinstance(target, dict):
            faults.append(f"--set {override}: '{parents[0]}' has no keys below it")
            continue
        target[key] = read_value(text)
        explicit.add(path.strip())
    return faults


def _apply_preset(values: dict[str, Any], explicit: set[str]) -> None:
    """`preset: official` fills in the method's named quirks wherever recipe and overrides are silent."""
    from disco_zoo.methods import METHODS

    method = values.get("method")
    name = method.get("name") if isinstance(method, dict) else None
    if values.get("preset") != "official" or not isinstance(name, str) or name not in METHODS:
        return
    for path, value in METHODS[name].OFFICIAL.items():
        section, key = path.split(".")
        if path not in explicit and isinstance(values.get(section), dict):
            values[section][key] = value
