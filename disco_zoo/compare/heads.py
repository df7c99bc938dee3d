"""How wide the hidden layer of each method's head is, and one width for all of them."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from disco_zoo.config.recipe import Recipe
from disco_zoo.models.encoder import feature_dim_of
from disco_zoo.models.student import create_backbone

_HIDDEN = ("mlp", "mlp_bn")


def head_widths(recipes: Mapping[str, Recipe]) -> dict[str, int | None]:
    """Width of each head's hidden layer; None for heads without one. All recipes are of one student."""
    student = next(iter(recipes.values())).student
    with torch.device("meta"):
        features = feature_dim_of(create_backbone(student.model, student.options))
    return {name: _width(recipe, features) for name, recipe in recipes.items()}


def same_head(recipes: Mapping[str, Recipe]) -> dict[str, list[str]]:
    """Overrides that give every head with a hidden layer the width of the widest of them; none where it has it."""
    widths = head_widths(recipes)
    widest = max((width for width in widths.values() if width), default=0)
    overrides = [f"student.head_hidden_dim={widest}", "student.head_hidden_ratio=null"]
    return {name: overrides if width not in (None, widest) else [] for name, width in widths.items()}


def _width(recipe: Recipe, features: int) -> int | None:
    student = recipe.student
    if student.head not in _HIDDEN:
        return None
    return student.head_hidden_dim or max(1, round(features * (student.head_hidden_ratio or 1.0)))
