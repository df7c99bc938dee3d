"""The caches on this machine: list, find by id, remove, and why a run builds a new one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click
from rich.table import Table

from disco_zoo.core.console import stdout_console
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
    for other in caches():
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


EMPTY = "There are no teacher caches. Type: disco-zoo cache build RECIPE --views M"


def print_caches(states: Sequence[CacheState], as_json: bool) -> None:
    """A table of caches, or JSON on stdout."""
    if as_json:
        own = ("id", "views", "slots", "size_bytes")
        click.echo(json.dumps([{**{name: getattr(s, name) for name in own}, **s.facts} for s in states], indent=2))
        return
    if not states:
        click.echo(EMPTY, err=True)
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("id", "teacher", "images", "views"):
        table.add_column(heading, overflow="fold")
    table.add_column("MB", justify="right")
    for heading in ("view recipe", "seed", "built"):
        table.add_column(heading)
    for state in states:
        key = state.facts["key"]
        table.add_row(
            state.id,
            state.facts["title"],
            f"{state.facts['images']} of {state.facts['data']}",
            views_text(state),
            f"{state.size_bytes / 1e6:.1f}",
            f"{key['view']['recipe']} {key['view_size']} px",
            str(key["seed"]),
            state.facts["created"][:10],
        )
    stdout_console(None if stdout_console().is_terminal else 140).print(table)


def views_text(state: CacheState) -> str:
    """ "8", or "2.5 of 8" while it is not whole."""
    return f"{state.slots}" if state.views >= state.slots else f"{state.views:g} of {state.slots}"
