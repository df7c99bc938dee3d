"""Faults of a recipe's views that depend on its method and its networks' input sizes."""

from __future__ import annotations

from typing import Any

from disco_zoo.core.schema import section_of
from disco_zoo.transforms.view_dataset import small_size_of


def check_views(values: dict[str, Any]) -> list[str]:
    """Small crops that the method does not take, lacks, or that are no smaller than the others."""
    from disco_zoo.methods import METHODS

    views, name = section_of(values, "views"), section_of(values, "method").get("name")
    method = METHODS.get(name) if isinstance(name, str) else None
    count = views.get("small_views", 0)
    if method is None or type(count) is not int or count < 0:
        return []
    if count and views.get("size") is not None:
        return ["views.size: not together with views.small_views; leave one of them out"]
    if count and method.small_views == "no":
        return [f"views.small_views: method {name} takes no small crops; leave it out"]
    if not count and method.small_views == "needed":
        return [f"missing key 'views.small_views' (method {name} needs small crops)"]
    return _check_small_size(values, views) if count else []


def _check_small_size(values: dict[str, Any], views: dict[str, Any]) -> list[str]:
    sizes = [section_of(values, section).get("image_size") for section in ("student", "teacher")]
    known = [size for size in sizes if type(size) is int]
    given = views.get("small_size")
    if not known or (given is not None and (type(given) is not int or given < 1)):
        return []
    view_size = max(known)
    small = small_size_of(views, view_size)
    # Each network sees the small crops in the same proportion to its own input size, in whole pixels.
    if all(1 <= round(small * size / view_size) < size for size in known):
        return []
    return [
        f"views.small_size: must be smaller than the views' {view_size} pixels, also for each network, not {small}. "
        f"Type: --set views.small_size={small_size_of({}, view_size)}"
    ]
