"""Opens the caches that a run needs, and builds missing parts first."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from disco_zoo.config.recipe import Recipe
from disco_zoo.core.console import console
from disco_zoo.data.dataset import ImageSource, require_index
from disco_zoo.errors import BadCache
from disco_zoo.methods import METHODS
from disco_zoo.models.teacher import Teacher
from disco_zoo.teacher_cache.block_views import SlotViews
from disco_zoo.teacher_cache.builder import Building, build_cache
from disco_zoo.teacher_cache.cache_dir import CacheFolder, caches_home
from disco_zoo.teacher_cache.cached_rows import CachedRows
from disco_zoo.teacher_cache.nearest import why_new
from disco_zoo.teacher_cache.onnx_rows import OnnxRows, engine_of_cache
from disco_zoo.teacher_cache.view_slots import SlotDraw
from disco_zoo.training.build import small_views_of
from disco_zoo.training.replay.mismatch import refusal_of
from disco_zoo.training.replay.views import Mismatch, ReplayedKind, ReplayedViews
from disco_zoo.training.replay.views_key import BIG, SMALL, cache_key
from disco_zoo.transforms.view_dataset import Companions, view_plan


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
