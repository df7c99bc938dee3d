"""Opens the teacher caches that a run needs and builds missing parts first; explains rows that do not fit."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from disco_zoo.config.recipe import Recipe
from disco_zoo.core.console import console
from disco_zoo.data.dataset import ImageSource, require_index
from disco_zoo.errors import BadCache, UnreadableImage
from disco_zoo.methods import METHODS
from disco_zoo.methods.base import SmallViews
from disco_zoo.models.teacher import Teacher, teacher_key
from disco_zoo.teacher_cache.builder import Building, SlotViews, build_cache
from disco_zoo.teacher_cache.cache_dir import CacheFolder, caches_home
from disco_zoo.teacher_cache.inventory import why_new
from disco_zoo.teacher_cache.journal import BLOCK_IMAGES, Done, block_of
from disco_zoo.teacher_cache.onnx_rows import OnnxRows, engine_of_cache
from disco_zoo.teacher_cache.rows import ROW_TYPE, CachedRows, CacheKey, SlotDraw
from disco_zoo.training.build import small_views_of
from disco_zoo.training.replay_views import Mismatch, ReplayedKind, ReplayedViews
from disco_zoo.transforms.view_dataset import Companions, multi_crop, small_size_of, view_plan

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
        "precision": recipe.optim.precision if engine == "torch" else "fp32",  # ONNX Runtime's, whatever steps take
        "row_type": ROW_TYPE,
    }
    if engine != "torch":
        values["engine"] = engine
    return CacheKey(json.loads(json.dumps(values)))


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


@dataclass(frozen=True)
class Replay:
    """The cached views and rows that replace a run's teacher."""

    source: ImageSource
    kinds: tuple[ReplayedKind, ...]
    seed: int

    def epoch(self, epoch: int, companions: Companions | None) -> Dataset[dict[str, Any]]:
        return ReplayedViews(self.source, self.kinds, seed=self.seed, epoch=epoch, companions=companions)

    def refusal_of(self, mismatches: Sequence[Mismatch]) -> BadCache:
        """The error for views and rows that do not belong together; the wrong rows are marked as missing."""
        return refusal_of(mismatches, self.source, self.kinds)

    def facts(self) -> list[dict[str, Any]]:
        """For run.json."""
        return [{"id": kind.rows.cache.path.name, "views": kind.rows.slots} for kind in self.kinds]


@dataclass(frozen=True)
class _Rows:
    """The teacher's rows of views, as a step without a cache computes them."""

    teacher: Teacher
    size: int
    accelerator: Any
    engine: str

    def __call__(self, views: Tensor) -> Tensor:
        if self.engine != "torch":
            return self._onnx(views)
        with self.accelerator.autocast():
            return self.teacher(views.to(self.accelerator.device, non_blocking=True), self.size)

    @functools.cached_property
    def _onnx(self) -> OnnxRows:
        return OnnxRows(self.teacher, self.size)


def replay_for(
    recipe: Recipe, teacher: Teacher | None, source: ImageSource, *, accelerator: Any, workers: int
) -> Replay | None:
    """Open the caches that `teacher.cache_views` asks for, and build first what they lack; None without the key.

    All processes of the run call this.

    Raises:
        BadCache, BadData, Interrupted: see `build_cache`.
    """
    views = recipe.teacher.cache_views if recipe.teacher else None
    if views is None or teacher is None:
        return None
    require_index(source, "a teacher cache (rows are found by the image's number)")
    crops = small_views_of(recipe)
    plan = view_plan(recipe.views, recipe.view_size, METHODS[recipe.method["name"]].num_views)
    wanted = [(BIG, plan.view, plan.num_views, views)]
    if plan.small is not None:
        wanted.append((SMALL, plan.small, plan.num_small, views // plan.num_views * plan.num_small))
    assert recipe.teacher is not None
    engine = engine_of_cache(recipe.teacher.cache_engine, accelerator.device)
    kinds = []
    for kind, view, num_views, slots in wanted:
        key = cache_key(recipe, teacher, source, kind, crops, engine)
        cache = CacheFolder(caches_home() / key.id)
        facts = {
            "key": key.values,
            "images": len(source),
            "width": teacher.embed_dim,
            "title": teacher.title,
            "data": source.name,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        if why := why_new(cache, facts):
            console.print(why, soft_wrap=True)
        draw = SlotDraw(view, recipe.cache_seed, kind)
        build_cache(
            cache,
            slots,
            Building(
                "teacher's views",
                SlotViews(source, draw, key.values["view_size"]),
                _Rows(teacher, key.values["teacher_size"], accelerator, engine),
                facts,
                max_unreadable_images=recipe.data.max_unreadable_images,
                workers=workers,
            ),
        )
        kinds.append(ReplayedKind(draw, num_views, CachedRows(cache, slots)))
    teacher.offload()
    return Replay(source, tuple(kinds), recipe.seed)
