"""The methods, by the name a recipe uses. To add one: a file here, a line here, a recipe, a test."""

from __future__ import annotations

from disco_zoo.methods.base import Method
from disco_zoo.methods.disco import DisCo
from disco_zoo.methods.moco_v2 import MoCoV2

METHODS: dict[str, type[Method]] = {
    "disco": DisCo,
    "moco_v2": MoCoV2,
}

__all__ = ["METHODS", "Method"]
