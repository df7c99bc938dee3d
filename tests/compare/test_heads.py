"""Widths of heads as they are built, and one width for all."""

from __future__ import annotations

import pytest
from torch import nn

from disco_zoo.compare.figures import head_widths, same_head
from disco_zoo.config.recipe import load_recipe
from disco_zoo.data.open_source import open_source
from disco_zoo.training.build import build_parts

NAMES = ["ssl_small_fmnist", "seed_lite0_fmnist", "disco_lite0_fmnist", "compress_1q_lite0_fmnist"]
NAMES = [f"pocket/disco_r18.{name}" for name in NAMES]


def built_width(name: str, overrides: list[str]) -> int | None:
    parts = build_parts(load_recipe(name, overrides), open_source("sample"))
    layers = [module for module in parts.student.head.modules() if isinstance(module, nn.Linear)]
    return layers[0].out_features if len(layers) == 2 else None


@pytest.mark.parametrize("name", NAMES)
def test_widths_are_those_of_the_heads_as_built_and_one_for_all_where_asked(name: str) -> None:
    recipes = {name: load_recipe(name) for name in NAMES}
    widths, overrides = head_widths(recipes), same_head(recipes)
    assert built_width(name, []) == widths[name]
    widest = max(width for width in widths.values() if width)
    assert built_width(name, overrides[name]) == (widest if widths[name] else None)
    assert len(set(widths.values())) > 2
    same = {name: load_recipe(name, overrides[name]) for name in NAMES}
    assert set(head_widths(same).values()) == {widest, None}
    assert not any(same_head(same).values())
