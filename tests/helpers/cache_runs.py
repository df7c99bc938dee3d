"""Toy runs with a teacher cache, and the caches they leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_runs import toy_recipe

from disco_zoo.config.recipe import Recipe
from disco_zoo.data.dataset import ImageSource
from disco_zoo.teacher_cache.cache_dir import CacheFolder
from disco_zoo.training.accelerator import make_accelerator
from disco_zoo.training.build import seeded_teacher
from disco_zoo.training.replay import Replay, replay_for
from disco_zoo.training.run_data import open_training_images

NUM_IMAGES = 150  # three blocks, the last one of 22 images
VIEWS = 4


def cached_recipe(views: int = VIEWS, **changes: Any) -> Recipe:
    """DisCo on toy images, three epochs of two views each."""
    return toy_recipe("disco", **{"teacher__cache_views": views, "optim__epochs": 3, **changes})


def build(recipe: Recipe, data: Path | ImageSource, workers: int = 0) -> Replay:
    """The caches of a run, built in this process."""
    source = data if isinstance(data, ImageSource) else open_training_images(recipe, str(data))
    accelerator = make_accelerator(recipe, "cpu")
    replay = replay_for(recipe, seeded_teacher(recipe, "cpu"), source, accelerator=accelerator, workers=workers)
    assert replay is not None
    return replay


def cache_of(replay: Replay) -> CacheFolder:
    """The cache of the big views."""
    return replay.kinds[0].rows.cache


def content(cache: CacheFolder) -> tuple[bytes, bytes]:
    """Rows and pair CRCs, all bytes."""
    return (cache.path / "rows.f16").read_bytes(), (cache.path / "pairs.u32").read_bytes()
