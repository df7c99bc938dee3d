"""Faults of a recipe's teacher cache that depend on its method and its epochs."""

from __future__ import annotations

from typing import Any

from disco_zoo.core.schema import section_of


def check_teacher(values: dict[str, Any]) -> list[str]:
    """A cache that the teacher or the method cannot use, or of more views than the epochs need."""
    from disco_zoo.methods import METHODS

    teacher, given = section_of(values, "teacher"), section_of(values, "method")
    name, views = given.get("name"), teacher.get("cache_views")
    method = METHODS.get(name) if isinstance(name, str) else None
    if method is None or type(views) is not int or views < 1:
        return []
    if teacher.get("bn_mode") == "train":
        return [
            "teacher.cache_views: with bn_mode train the teacher's embedding of a view depends on its batch. "
            "Type: --set teacher.bn_mode=eval, or --set teacher.cache_views=null"
        ]
    if given.get("cached_teacher"):
        return ["teacher.cache_views: method.cached_teacher already replaces the teacher; leave one of them out"]
    if views % method.num_views:
        fitting = max(views // method.num_views, 1) * method.num_views
        return [
            f"teacher.cache_views: must be a multiple of the {method.num_views} views that {name} takes a step, "
            f"not {views}. Type: --set teacher.cache_views={fitting}"
        ]
    epochs = section_of(values, "optim").get("epochs")
    if type(epochs) is int and 0 < (needed := epochs * method.num_views) < views:
        return [
            f"teacher.cache_views: {name} over {epochs} epoch{'s' if epochs > 1 else ''} never needs more than "
            f"{needed} views, not {views}. Type: --set teacher.cache_views={needed}"
        ]
    return []
