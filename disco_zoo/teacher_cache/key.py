"""What decides a cached row, as plain values: caches of different keys never meet."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from disco_zoo.datasets import ImageSource
from disco_zoo.feature_bank import teacher_key
from disco_zoo.methods.base import SmallViews
from disco_zoo.recipe import Recipe
from disco_zoo.teachers import Teacher
from disco_zoo.view_dataset import multi_crop, small_size_of

ROW_TYPE = "<f2"
BIG, SMALL = 0, 1


@dataclass(frozen=True)
class CacheKey:
    """The key of one cache.

    Attributes:
        values: plain values by name; equal values mean equal rows.
    """

    values: dict[str, Any]

    @property
    def id(self) -> str:
        """Sixteen hex digits, the name of the folder."""
        return hashlib.sha256(json.dumps(self.values, sort_keys=True).encode()).hexdigest()[:16]


def cache_key(recipe: Recipe, teacher: Teacher, source: ImageSource, kind: int, crops: SmallViews | None) -> CacheKey:
    """The key of a recipe's big views, or of its small crops.

    The number of views is no part of it: a cache of more views than a run needs serves it as well.
    """
    common = multi_crop()
    view = {key: value for key, value in recipe.views.items() if key not in common}
    size, teacher_size = recipe.view_size, teacher.encoder.image_size
    if kind == SMALL:
        assert crops is not None  # who asks for small crops has some
        view["crop_scale"] = recipe.views["small_crop_scale"]
        size, teacher_size = small_size_of(recipe.views, recipe.view_size), crops.teacher_size
    values = {
        "teacher": teacher_key(teacher),
        "features": "backbone" if teacher.headless else "head",
        "mean": teacher.encoder.mean,
        "std": teacher.encoder.std,
        "teacher_size": teacher_size,
        "data": source.fingerprint(),
        "images": len(source),
        "kind": kind,
        "view": view,
        "view_size": size,
        "seed": recipe.seed,
        "precision": recipe.optim.precision,
        "row_type": ROW_TYPE,
    }
    return CacheKey(json.loads(json.dumps(values)))
