"""A replayed view and a teacher's row that do not belong together: why, and what the next run computes again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from disco_zoo.datasets import ImageSource
from disco_zoo.errors import BadCache, UnreadableImage
from disco_zoo.teacher_cache.cached_rows import CachedRows
from disco_zoo.teacher_cache.journal import BLOCK_IMAGES, Done
from disco_zoo.teacher_cache.slots import SlotDraw

OTHERS_COMPARED = 32


@dataclass(frozen=True)
class Misfit:
    """Where one was found.

    Attributes:
        kind: of view, as the run counts them.
    """

    kind: int
    image: int
    slot: int


def refusal_of(misfit: Misfit, source: ImageSource, draw: SlotDraw, rows: CachedRows) -> BadCache:
    """Strike out what is damaged or of an image that changed, and say so; where all changed, say that.

    Returns the error to raise.
    """
    cache, index = rows.cache, misfit.image
    name, place = cache.path.name, f"image {index} ({source.path(index)})"
    noted = [done for done in cache.journal.read() if done.first == index - index % BLOCK_IMAGES]
    if damaged := cache.damaged(noted):
        wrong = f"teacher cache {name} is damaged at {place}"
        return _struck_out(rows, damaged, wrong, f". disco-zoo cache verify {name} says whether there is more")
    differ, compared = _others_that_differ(misfit, source, draw, rows)
    if differ:
        return BadCache(
            f"{place} and {differ} of {compared} others are not what the teacher saw: they, or what draws views, "
            f"changed since. Type: disco-zoo cache rm {name}, then the command with --resume"
        )
    return _struck_out(rows, noted, f"{place} is not what the teacher saw: it changed since")


def _struck_out(rows: CachedRows, blocks: list[Done], wrong: str, more: str = "") -> BadCache:
    try:
        with rows.cache.claimed():
            rows.cache.strike_out(blocks)
    except BadCache as error:
        return BadCache(f"{wrong}, and its rows cannot be struck out: {error}")
    return BadCache(
        f"{wrong}. The rows of its {BLOCK_IMAGES} neighbours are struck out: repeat the command with --resume, and the "
        f"teacher sees them again{more}"
    )


def _others_that_differ(misfit: Misfit, source: ImageSource, draw: SlotDraw, rows: CachedRows) -> tuple[int, int]:
    """Of images all over the data: how many are not what the teacher saw, and of how many."""
    numbers = np.unique(np.linspace(0, len(source) - 1, OTHERS_COMPARED, dtype=np.int64)).tolist()
    fits = []
    for index in numbers:
        if index != misfit.image:
            try:
                view = draw(source.opened(index), index, misfit.slot)
            except UnreadableImage:
                continue  # it has no row either
            fits.append(rows.belongs(rows.row(index, misfit.slot), view, index, misfit.slot))
    return fits.count(False), len(fits)
