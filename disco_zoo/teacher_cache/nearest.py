"""Explains why a run builds a new cache although a similar one exists."""

from __future__ import annotations

from typing import Any

from disco_zoo.teacher_cache import inventory
from disco_zoo.teacher_cache.cache_dir import CacheFolder

# What people would change, and the parts of a key that change with it.
_CAUSES: dict[str, tuple[str, ...]] = {
    "teacher": ("teacher", "features", "mean", "std", "teacher_size"),
    "data": ("data", "images"),
    "views": ("view", "view_size"),
    "seed": ("seed",),
    "precision": ("precision",),
}


def why_new(cache: CacheFolder, facts: dict[str, Any]) -> str | None:
    """The one thing in which a cache on this machine differs from the one that is to be made; None if there is none.

    Args:
        facts: of the cache to be made.
    """
    if cache.path.exists():
        return None
    for other in inventory.caches():
        causes = _causes(other.facts["key"], facts["key"])
        if len(causes) == 1:
            return (
                f"teacher cache {other.path.name} is {_of(causes[0], other.facts, facts)}: a new one is made, "
                f"{cache.path.name}. If no run needs the other: disco-zoo cache rm {other.path.name}"
            )
    return None


def _causes(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """Empty also where the keys are not of one kind."""
    if there.keys() != here.keys() or there["kind"] != here["kind"]:
        return []
    return [cause for cause, parts in _CAUSES.items() if any(there[part] != here[part] for part in parts)]


def _of(cause: str, there: dict[str, Any], here: dict[str, Any]) -> str:
    if cause == "teacher":
        return f"of another teacher or input of it ({there['title']})"
    if cause == "data":
        others = f"{there['images']} images, not {here['images']}"
        return f"of other images ({others if there['images'] != here['images'] else there['data']})"
    if cause == "views":
        return "of views of another recipe or size"
    return f"of {cause} {there['key'][cause]}, not {here['key'][cause]}"
