"""The cache key of a recipe's views."""

from __future__ import annotations

import json

from disco_zoo.config.recipe import Recipe
from disco_zoo.data.dataset import ImageSource
from disco_zoo.methods.base import SmallViews
from disco_zoo.models.teacher import Teacher, teacher_key
from disco_zoo.teacher_cache.cache_key import ROW_TYPE, CacheKey
from disco_zoo.transforms.view_dataset import multi_crop, small_size_of

BIG, SMALL = 0, 1


def cache_key(
    recipe: Recipe, teacher: Teacher, source: ImageSource, kind: int, crops: SmallViews | None, engine: str
) -> CacheKey:
    """The key of a recipe's big views, or of its small crops.

    Args:
        engine: what computes the rows, from `engine_of_cache`.

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
        "seed": recipe.cache_seed,
        "precision": recipe.optim.precision,
        "row_type": ROW_TYPE,
    }
    if engine != "torch":
        values["engine"] = engine
    return CacheKey(json.loads(json.dumps(values)))
