"""The caches on this machine: list, find by id, remove."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import Any

from disco_zoo.errors import BadCache, UnknownName, did_you_mean
from disco_zoo.teacher_cache.cache_dir import CacheFolder, caches_home, writing_errors


@dataclass(frozen=True)
class CacheState:
    """Facts of a cache for a listing.

    Attributes:
        facts: of cache.json.
        views: views of each image that are done, 2.5 where a third is half done.
        slots: views of each image that the files have room for.
        size_bytes: on disk.
    """

    id: str
    facts: dict[str, Any]
    views: float
    slots: int
    size_bytes: int


def folders() -> list[CacheFolder]:
    """Every folder of a cache, by id, also the damaged ones."""
    home = caches_home()
    return [CacheFolder(path) for path in sorted(home.iterdir()) if path.is_dir()] if home.is_dir() else []


def caches() -> list[CacheFolder]:
    """Every cache, by id; folders that hold none are left out."""
    return [cache for cache in folders() if _fault(cache) is None]


def faults() -> list[str]:
    """What is wrong with each folder that holds no cache, and what to type."""
    return [fault for folder in folders() if (fault := _fault(folder)) is not None]


def find_cache(name: str) -> CacheFolder:
    """The cache whose id begins with `name`.

    Raises:
        UnknownName: none, or several.
    """
    # Also a folder without a readable cache.json: it must be possible to remove it.
    ids = [cache.path.name for cache in folders()]
    found = [one for one in ids if one.startswith(name)]
    if len(found) != 1:
        wrong = f"there is no cache '{name}'.{did_you_mean(name, ids)}"
        if found:
            wrong = f"several caches begin with '{name}': {', '.join(found)}."
        raise UnknownName(f"{wrong} Type: disco-zoo cache list")
    return CacheFolder(caches_home() / found[0])


def state_of(cache: CacheFolder) -> CacheState:
    """Read what of the cache is done.

    Raises:
        BadCache: it is damaged.
    """
    slots = cache.slots_on_disk
    missing = cache.missing(slots)
    done = 1.0 - missing.mean() if missing.size else 0.0
    return CacheState(cache.path.name, cache.facts, round(done * slots, 2), slots, cache.size_bytes)


def remove(cache: CacheFolder) -> None:
    """Delete a cache.

    Raises:
        BadCache: it is being built, or cannot be deleted.
    """
    with cache.claimed(), writing_errors(cache.path):
        files = [path for path in cache.path.iterdir() if path.name != ".lock"]
        # What makes it a cache goes first: a deletion that is cut short leaves nothing that is trusted.
        for path in sorted(files, key=lambda path: (path.name != "cache.json", not path.name.startswith("done-"))):
            path.unlink()
        shutil.rmtree(cache.path)


def _fault(cache: CacheFolder) -> str | None:
    try:
        _ = cache.facts
    except BadCache as error:
        return str(error)
    return None
