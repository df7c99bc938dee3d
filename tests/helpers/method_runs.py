"""One toy run of each method, as a recipe would ask for it."""

from __future__ import annotations

from typing import Any

from tiny_runs import toy_values

from disco_zoo.config.recipe import Recipe, parse_recipe
from disco_zoo.methods import METHODS

TEACHER = {"source": "test_resnet", "pretrained": False, "image_size": 32}
# At least 32 pixels, or the networks of the tests have nothing left to convolve.
SMALL_CROPS: dict[str, Any] = {
    "views": {"small_views": 2, "small_size": 32},
    "student": {"image_size": 48},
    "teacher": {"image_size": 48},
}
SWAV = {"num_prototypes": 6, "queue_size": 16, "queue_start_epoch": 1, "freeze_prototypes_steps": 2}
# Changes to a toy recipe, beside the method's name: keys of `method`, and whole other sections.
OPTIONS: dict[str, dict[str, Any]] = {
    "bingo": {"method": {"queue_size": 20, "bag_size": 2, "switch_epoch": 1}},
    "compress_1q": {"method": {"queue_size": 20}},
    "compress_2q": {"method": {"queue_size": 20}, "student": {"head": "none", "head_hidden_dim": None}},
    "compress_2q_momentum": {
        "method": {"queue_size": 20, "momentum": 0.9},
        "student": {"head": "none", "head_hidden_dim": None},
    },
    "coss": {"method": {"centre_teacher": True}},
    "crd": {"method": {"negatives": 6}},
    "disco": {"method": {"queue_size": 20, "momentum": 0.9, "centre_teacher": True}},
    "disco_swav": {"method": SWAV, **SMALL_CROPS},
    "feature": {},
    "kd_mse": {},
    "moco_v2": {"method": {"queue_size": 20, "momentum": 0.9}},
    "rkd": {"method": {"queue_size": 20, "momentum": 0.9, "distill_weight": 32.0}},
    "seed": {"method": {"queue_size": 20}, **SMALL_CROPS},
    "simclr": {},
    "ssl_small": {"method": {"queue_size": 20, "momentum": 0.9}},
    "swav": {"method": SWAV, **SMALL_CROPS},
}


def method_values(method: str, **changes: Any) -> dict[str, Any]:
    """Values of a toy recipe for `method`; `changes` as in `toy_values`."""
    values = toy_values("moco_v2", **changes)
    values["name"], values["method"] = f"toy_{method}", {"name": method, **OPTIONS[method].get("method", {})}
    values["views"] |= OPTIONS[method].get("views", {})
    values["student"] |= OPTIONS[method].get("student", {})
    if METHODS[method].needs_teacher:
        values["teacher"] = {**TEACHER, **OPTIONS[method].get("teacher", {}), **values.get("teacher", {})}
    return values


def method_recipe(method: str, **changes: Any) -> Recipe:
    return parse_recipe(method_values(method, **changes), origin="toy")
