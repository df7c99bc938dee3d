"""Faults of a recipe as messages: path, value and nearest name of each."""

from __future__ import annotations

import functools
import inspect
import json
import typing
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel, ValidationError, create_model

from disco_zoo.config.optim import shared_batch
from disco_zoo.core.schema import Section, explain, section_of
from disco_zoo.errors import did_you_mean

if TYPE_CHECKING:
    from disco_zoo.methods.base import Method

OWN_DATA = "custom"  # images that no catalog knows


@functools.cache
def schema_of(target: Callable[..., Any] | None) -> type[BaseModel]:
    """A pydantic model of a view recipe's or a method's keyword-only arguments: the signature is the schema."""
    if target is None:
        return Section
    from disco_zoo.transforms.view_dataset import multi_crop
    from disco_zoo.transforms.view_recipes import VIEW_RECIPES

    fields = _keyword_fields(target) if inspect.isfunction(target) else _method_fields(cast("type[Method]", target))
    if target in VIEW_RECIPES.values():
        fields |= _keyword_fields(multi_crop)  # every view recipe may have small crops besides
    return create_model(f"Options of {getattr(target, '__name__', target)}", __base__=Section, **fields)


def _method_fields(method: type[Method]) -> dict[str, Any]:
    """Those of the parts, then the method's own; of a variant without what it decides, and with its defaults."""
    fields: dict[str, Any] = {}
    for owner in (*method.PARTS, method.VARIANT_OF or method):
        fields |= _keyword_fields(owner.__init__)  # type: ignore[misc]
    fields |= {key: (fields[key][0], value) for key, value in method.DEFAULTS.items()}
    return {key: field for key, field in fields.items() if key not in method.DECIDED}


def _keyword_fields(function: Callable[..., Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(function, include_extras=True)
    return {
        name: (hints[name], ... if parameter.default is parameter.empty else parameter.default)
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }


def _named_sections() -> dict[str, tuple[str, dict[str, Any]]]:
    """The sections whose keys depend on a name in them: which key holds it, and what it may name."""
    from disco_zoo.methods import METHODS
    from disco_zoo.transforms.view_recipes import VIEW_RECIPES

    return {"views": ("recipe", VIEW_RECIPES), "method": ("name", METHODS)}


def resolve_named_sections(values: dict[str, Any]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Check `views` and `method`, whose schema is the signature of what they name.

    Returns:
        Those of the two that have no fault, with the signature's defaults for what they leave out; and the faults.
    """
    resolved: dict[str, dict[str, Any]] = {}
    faults = []
    for section, (selector, known) in _named_sections().items():
        given = values.get(section)
        if not isinstance(given, dict):
            continue
        chosen, choice = given.get(selector), f"(one of {', '.join(known)})"
        if chosen is None:
            faults.append(f"missing key '{section}.{selector}' {choice}")
        elif not isinstance(chosen, str) or chosen not in known:
            faults.append(f"{section}.{selector}: unknown '{chosen}'.{did_you_mean(str(chosen), known)} {choice}")
        else:
            model = schema_of(known[chosen])
            options = {key: value for key, value in given.items() if key != selector}
            try:
                checked = model.model_validate_json(json.dumps(options)).model_dump(mode="json")
                resolved[section] = {selector: chosen, **checked}
            except ValidationError as error:
                faults += explain(error, model, (section,))
    return resolved, faults


def check_across_sections(values: dict[str, Any]) -> list[str]:
    """Faults between sections; values that are faulty by themselves are skipped."""
    faults: list[str] = []
    student, optim = section_of(values, "student"), section_of(values, "optim")
    method = _method_of(values)
    needs_teacher = None if method is None else method.needs_teacher
    if needs_teacher and values.get("teacher") is None:
        faults.append(f"missing key 'teacher.source' (method {values['method']['name']} needs a teacher)")
    if needs_teacher is False and values.get("teacher") is not None:
        faults.append(
            f"teacher: method {values['method']['name']} has no teacher: leave this section out, or name whose tensors "
            "to inherit by student.init_from"
        )
    if student.get("init") == "inherit" and not (student.get("init_from") or values.get("teacher")):
        faults.append("missing key 'student.init_from' (whose tensors to inherit)")
    if student.get("init") == "checkpoint" and not student.get("init_from"):
        faults.append("missing key 'student.init_from' (the safetensors file to start from)")
    batch_size, accumulation = optim.get("batch_size"), optim.get("accumulation_steps")
    if type(batch_size) is type(accumulation) is int and accumulation > 0 and batch_size % accumulation:
        faults.append(
            f"optim.accumulation_steps: {accumulation} does not divide optim.batch_size {batch_size}. "
            f"Type: --set optim.batch_size={shared_batch(batch_size, accumulation)}"
        )
    if optim.get("last_batch") == "keep" and method is not None and not method.takes_any_batch:
        name = values["method"]["name"]
        faults.append(f"optim.last_batch: method {name} needs whole batches; leave it out or write drop")
    queue_size = section_of(values, "method").get("queue_size")
    if type(queue_size) is type(batch_size) is int and 0 < queue_size < batch_size:
        faults.append(
            f"method.queue_size: must hold a batch of {batch_size} images, not {queue_size}. "
            f"Type: --set method.queue_size={batch_size}"
        )
    return faults + (method.faults(values) if method else []) + _check_sizes(values) + _check_names(values)


def _check_sizes(values: dict[str, Any]) -> list[str]:
    evaluation = section_of(values, "eval")
    crop = evaluation.get("image_size") or section_of(values, "student").get("image_size")
    resize = evaluation.get("resize_size")
    if type(resize) is type(crop) is int and 0 < resize < crop:
        return [f"eval.resize_size: must be at least the crop's {crop} pixels, not {resize}"]
    return []


def _check_names(values: dict[str, Any]) -> list[str]:
    """Names that other files define: datasets and linear protocols."""
    from disco_zoo.protocols.linear import LINEAR_PROTOCOLS
    from disco_zoo.zoo.catalog import load_catalog

    references: list[tuple[str, str, Iterable[str]]] = [
        ("data", "id", [*load_catalog().datasets, OWN_DATA]),
        ("data", "extra_id", [*load_catalog().datasets, OWN_DATA]),
        ("eval", "linear", LINEAR_PROTOCOLS),
    ]
    faults = []
    for section, key, known in references:
        name = section_of(values, section).get(key)
        if isinstance(name, str) and name not in known:
            faults.append(f"{section}.{key}: unknown '{name}'.{did_you_mean(name, known)} (one of {', '.join(known)})")
    return faults


def _method_of(values: dict[str, Any]) -> type[Method] | None:
    """None where the method is unknown."""
    _, methods = _named_sections()["method"]
    name = section_of(values, "method").get("name")
    return methods.get(name) if isinstance(name, str) else None
