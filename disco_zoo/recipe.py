"""Recipes: one strict, flat YAML per run. Every fault is reported at once, with its path and a suggestion."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from disco_zoo.errors import BadRecipe, UnknownName, did_you_mean

Channels = tuple[float, float, float]


class Section(BaseModel):
    """Strict: no unknown keys; 1 is not True and "3" is not 3, but YAML's lists may fill tuples."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class StudentSection(Section):
    model: str
    image_size: int = Field(ge=16)
    mean: Channels = (0.485, 0.456, 0.406)
    std: Channels = (0.229, 0.224, 0.225)
    head: Literal["mlp", "linear", "none"] = "mlp"
    embed_dim: int | None = None  # None: the teacher's, or 128 without a teacher
    head_hidden_dim: int | None = 2048  # None: the feature width (MoCo-v2's rule); DisCo fixes 2048
    init: Literal["random", "inherit", "checkpoint"] = "random"
    init_from: str | None = None  # inherit: a teacher source, default teacher.source; checkpoint: a safetensors file
    recalibration_images: int = 1024  # inherit only: images that set BatchNorm's statistics


class TeacherSection(Section):
    source: str
    pretrained: bool = True
    image_size: int | None = None  # None: the student's
    features: Literal["head", "backbone"] = "head"
    bn_mode: Literal["eval", "train"] = "eval"


class DataSection(Section):
    id: str  # of the catalog's datasets
    source: str | None = None  # None: must come from --data
    eval_source: str | None = None  # None: the test split of `source`
    max_unreadable_images: int = 100


class OptimSection(Section):
    optimizer: Literal["sgd", "adamw"]
    batch_size: int = Field(ge=1)  # images a step, over all processes and accumulated micro-batches
    base_lr: float = Field(gt=0)  # for 256 images; the rate used is base_lr * batch_size / 256
    weight_decay: float = Field(ge=0)
    momentum: float = 0.9  # SGD only
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
    knn_bank_images: int = 5000  # of the training split, drawn by the seed; the test split is cut to as many


class EvalSection(Section):
    image_size: int | None = None  # None: the student's
    resize_size: int | None = None  # None: image_size * 256 / 224
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
    seed: int = 0
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
        return yaml.safe_dump(self.as_dict(), sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)

    def digest(self) -> str:
        """Identifies the run: everything that decides its weights, but not how often it logs."""
        decisive = {k: v for k, v in self.as_dict().items() if k not in {"log", "target", "cost", "reference"}}
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def recipes_folder() -> Path:
    """Where recipes lie: inside the installed package, or beside it in a checkout."""
    installed = Path(__file__).parent / "recipes"
    return installed if installed.is_dir() else Path(__file__).parents[1] / "recipes"


def bundled_recipes() -> dict[str, Path]:
    """Every recipe on disk by its full name, `scale/checkpoint`."""
    folder = recipes_folder()
    return {path.relative_to(folder).as_posix().removesuffix(".yaml"): path for path in sorted(folder.rglob("*.yaml"))}


def find_recipe(name: str) -> Path:
    """Find a recipe by path, by `scale/name`, or by name where only one scale has it."""
    path = Path(name).expanduser()
    if path.suffix in {".yaml", ".yml"}:
        if path.is_file():
            return path
        raise BadRecipe(f"recipe {path} does not exist. The bundled ones: {', '.join(bundled_recipes())}")
    known = bundled_recipes()
    found = [full for full in known if name in (full, full.split("/", 1)[1])]
    if len(found) != 1:
        names = [*known, *(full.split("/", 1)[1] for full in known)]
        hint = did_you_mean(name, names) or f" There are: {', '.join(known)}"
        raise UnknownName(f"unknown recipe '{name}'.{hint}")
    return known[found[0]]


def load_recipe(name: str, overrides: Iterable[str] = ()) -> Recipe:
    """Load a recipe by name or path and apply `key=value` overrides, checked the same way.

    Raises:
        UnknownName: no such recipe.
        BadRecipe: all faults of file and overrides together.
    """
    path = find_recipe(name)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise BadRecipe(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise BadRecipe(f"{path} holds no keys")
    explicit = {f"{s}.{k}" for s, section in values.items() if isinstance(section, dict) for k in section}
    faults = _apply_overrides(values, overrides, explicit)
    _apply_preset(values, explicit)
    return parse_recipe(values, origin=path.name, faults=faults)


def parse_recipe(values: dict[str, Any], *, origin: str, faults: Iterable[str] = ()) -> Recipe:
    """Validate a recipe's values; `faults` found earlier are reported along with the new ones."""
    messages = list(faults)
    recipe: Recipe | None = None
    try:
        recipe = Recipe.model_validate_json(json.dumps(values))
    except ValidationError as error:
        messages += _explain(error, Recipe, ())
    for section, schema in (("views", _views_schema), ("method", _method_schema)):
        given = values.get(section)
        if isinstance(given, dict):
            messages += _check_named(section, given, schema)
    if recipe is not None and not messages:
        messages += _check_whole(recipe)
    if messages or recipe is None:
        raise BadRecipe(f"{origin}: " + "; ".join(messages))
    return recipe.model_copy(
        update={
            "views": _with_defaults(recipe.views, _views_schema),
            "method": _with_defaults(recipe.method, _method_schema),
        }
    )


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
        target[key] = _yaml_value(text)
        explicit.add(path.strip())
    return faults


def _yaml_value(text: str) -> Any:
    """YAML's reading of a value, except that 1e-4 is a number here although YAML 1.1 calls it text."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _apply_preset(values: dict[str, Any], explicit: set[str]) -> None:
    """`preset: official` fills in the method's named quirks wherever recipe and overrides are silent."""
    from disco_zoo.methods import METHODS

    method = values.get("method")
    if values.get("preset") != "official" or not isinstance(method, dict) or method.get("name") not in METHODS:
        return
    for path, value in METHODS[method["name"]].OFFICIAL.items():
        section, key = path.split(".")
        if path not in explicit and isinstance(values.get(section), dict):
            values[section][key] = value


def _views_schema(given: dict[str, Any]) -> tuple[type[BaseModel], str, Iterable[str]]:
    from disco_zoo.views import VIEW_RECIPES

    return _schema_of(VIEW_RECIPES.get(given.get("recipe", ""))), "recipe", VIEW_RECIPES


def _method_schema(given: dict[str, Any]) -> tuple[type[BaseModel], str, Iterable[str]]:
    from disco_zoo.methods import METHODS

    return _schema_of(METHODS.get(given.get("name", ""))), "name", METHODS


@functools.cache
def _schema_of(target: Callable[..., Any] | None) -> type[BaseModel]:
    """A pydantic model of a callable's keyword-only arguments: the signature is the schema."""
    if target is None:
        return Section
    function = target.__init__ if inspect.isclass(target) else target
    hints = typing.get_type_hints(function)
    fields: dict[str, Any] = {
        name: (hints[name], ... if parameter.default is parameter.empty else parameter.default)
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    return create_model(f"Options of {getattr(target, '__name__', target)}", __base__=Section, **fields)


def _check_named(section: str, given: dict[str, Any], schema: Callable[[dict[str, Any]], Any]) -> list[str]:
    model, selector, known = schema(given)
    chosen = given.get(selector)
    if chosen is None:
        return [f"missing key '{section}.{selector}' (one of {', '.join(known)})"]
    if chosen not in known:
        return [f"{section}.{selector}: unknown '{chosen}'.{did_you_mean(str(chosen), known)} (one of {', '.join(known)})"]
    options = {key: value for key, value in given.items() if key != selector}
    try:
        model.model_validate_json(json.dumps(options))
    except (ValidationError, TypeError) as error:
        return _explain(error, model, (section,)) if isinstance(error, ValidationError) else [f"{section}: {error}"]
    return []


def _with_defaults(given: dict[str, Any], schema: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """The section as given, with the signature's defaults for what it leaves out."""
    model, selector, _ = schema(given)
    options = {key: value for key, value in given.items() if key != selector}
    return {selector: given[selector], **model.model_validate_json(json.dumps(options)).model_dump(mode="json")}


def _explain(error: ValidationError, model: type[BaseModel], prefix: tuple[str, ...]) -> list[str]:
    messages = []
    for fault in error.errors():
        location = [str(part) for part in (*prefix, *fault["loc"])]
        path = ".".join(location)
        if fault["type"] == "extra_forbidden":
            messages.append(f"unknown key '{path}'.{did_you_mean(location[-1], _keys_at(model, location[len(prefix):-1]))}")
        elif fault["type"] == "missing":
            messages.append(f"missing key '{path}'")
        else:
            messages.append(f"{path}: {fault['msg'].lower()}, not {json.dumps(fault['input'])[:60]}")
    return messages


def _keys_at(model: type[BaseModel], path: list[str]) -> list[str]:
    """Keys that a section of the schema knows, to suggest the nearest."""
    for part in path:
        annotation = model.model_fields[part].annotation
        candidates = [annotation, *typing.get_args(annotation)]
        model = next(c for c in candidates if inspect.isclass(c) and issubclass(c, BaseModel))
    return list(model.model_fields)


def _check_whole(recipe: Recipe) -> list[str]:
    """Faults that show only when the sections are seen together."""
    from disco_zoo.catalog import load_catalog
    from disco_zoo.methods import METHODS

    faults = []
    datasets = load_catalog().datasets
    if recipe.data.id not in datasets:
        faults.append(f"data.id: unknown '{recipe.data.id}'.{did_you_mean(recipe.data.id, datasets)}")
    if METHODS[recipe.method["name"]].needs_teacher and recipe.teacher is None:
        faults.append(f"missing key 'teacher.source' (method {recipe.method['name']} needs a teacher)")
    if recipe.student.init == "inherit" and not (recipe.student.init_from or recipe.teacher):
        faults.append("missing key 'student.init_from' (whose tensors to inherit)")
    if recipe.student.init == "checkpoint" and not recipe.student.init_from:
        faults.append("missing key 'student.init_from' (the safetensors file to start from)")
    if recipe.optim.batch_size % recipe.optim.accumulation_steps:
        faults.append("optim.accumulation_steps: must divide optim.batch_size")
    return faults
