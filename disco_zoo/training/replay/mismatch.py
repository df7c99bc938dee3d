"""Explains a cached row that does not belong to its view, and marks what the next run must compute again."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from disco_zoo.data.dataset import ImageSource
from disco_zoo.errors import BadCache, UnreadableImage
from disco_zoo.teacher_cache.cache_dir import CacheFolder
from disco_zoo.teacher_cache.journal import BLOCK_IMAGES, Done, block_of
from disco_zoo.training.replay.views import Mismatch, ReplayedKind

OTHERS_COMPARED = 32
# Other processes of a run may have met the same mismatches, and strike them out first.
PATIENCE_SECONDS = 10.0


def refusal_of(mismatches: Sequence[Mismatch], source: ImageSource, kinds: Sequence[ReplayedKind]) -> BadCache:
    """Strike out the blocks that are damaged or of images that changed, and say so; where most changed, say that.

    Args:
        mismatches: of one batch, at least one.

    Returns the error to raise.
    """
    first = min(mismatches, key=lambda mismatch: mismatch.kind)  # processes claim the caches in one order
    place, name = f"image {first.image} ({source.path(first.image)})", kinds[first.kind].rows.cache.path.name
    try:
        return _judged(first, place, mismatches, source, kinds)
    except BadCache as error:
        return BadCache(f"{place} is not what the teacher cache {name} was made of, which stays as it is: {error}")


def _judged(
    first: Mismatch, place: str, mismatches: Sequence[Mismatch], source: ImageSource, kinds: Sequence[ReplayedKind]
) -> BadCache:
    kind = kinds[first.kind]
    cache = kind.rows.cache
    name, images = cache.path.name, _images_of(first.kind, mismatches)
    with cache.claimed(_Patience(name)):
        noted = _blocks_of(cache, images)
        if not noted:
            return _repeat(f"another process found teacher cache {name} wrong at {place}")
        if damaged := cache.damaged(noted):
            cache.strike_out(damaged)
            return _repeat(f"teacher cache {name} is damaged at {place}", f"; disco-zoo cache verify {name} finds more")
        unread = first.image in cache.journal.unreadable()
        others = _others_that_differ(kind, first.slot, images, source)
        if others.count(True) > len(others) / 2:
            return BadCache(
                f"{place} and {others.count(True)} of {len(others)} others are not what the teacher saw: they, or what "
                f"draws views, changed since. Type: disco-zoo cache rm {name}, then the command with --resume"
            )
        cache.strike_out(noted)
    for other in sorted({mismatch.kind for mismatch in mismatches} - {first.kind}):
        beside = kinds[other].rows.cache
        with beside.claimed(_Patience(beside.path.name)):
            beside.strike_out(_blocks_of(beside, _images_of(other, mismatches)))
    why = "could not be read when the cache was built, and can be now" if unread else "changed since"
    return _repeat(
        f"{place} is not what the teacher saw: it {why}",
        f"; where many images changed, type disco-zoo cache rm {name} first",
    )


def _repeat(wrong: str, more: str = "") -> BadCache:
    return BadCache(
        f"{wrong}. The rows of its block of {BLOCK_IMAGES} images are struck out: repeat the command with --resume, "
        f"and the teacher sees these again{more}"
    )


def _images_of(kind: int, mismatches: Sequence[Mismatch]) -> set[int]:
    return {mismatch.image for mismatch in mismatches if mismatch.kind == kind}


def _blocks_of(cache: CacheFolder, images: set[int]) -> list[Done]:
    first = {block_of(image) for image in images}
    return [done for done in cache.journal.read() if done.first in first]


def _others_that_differ(kind: ReplayedKind, slot: int, images: set[int], source: ImageSource) -> list[bool]:
    """Of images all over the data, in blocks that are whole: whether each is not what the teacher saw."""
    cache, rows = kind.rows.cache, kind.rows
    numbers = np.unique(np.linspace(0, len(source) - 1, OTHERS_COMPARED, dtype=np.int64)).tolist()
    unread = cache.journal.unreadable()
    damaged = {done.first for done in cache.damaged(_blocks_of(cache, set(numbers)))}
    differ = []
    for index in numbers:
        if index in images or index in unread or block_of(index) in damaged:
            continue
        try:
            view = kind.draw(source.opened(index), index, slot)
        except UnreadableImage:
            continue  # nothing is learned from it either
        differ.append(not rows.belongs(rows.row(index, slot), view, index, slot))
    return differ


class _Patience:
    """Waits a little each time, and at last no longer."""

    def __init__(self, name: str) -> None:
        self.name, self.until = name, time.monotonic() + PATIENCE_SECONDS

    def __call__(self) -> None:
        if time.monotonic() > self.until:
            raise BadCache(f"another process changes teacher cache {self.name}. Wait for it")
        time.sleep(0.2)
