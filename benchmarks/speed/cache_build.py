"""The build of a teacher cache as it is; a step is a block of 64 images in all their views, drawn, asked and on disk.

A cache that is whole is followed by one of another seed, so there are as many blocks as anybody asks for; opening it
would count. 2048 images are 32 blocks, one to warm up and more than nine rounds of three take.
"""

from __future__ import annotations

import argparse
import itertools
from typing import Any

from contestant import Quota

from disco_zoo.config.recipe import load_recipe
from disco_zoo.teacher_cache.cache_dir import CacheFolder
from disco_zoo.training.accelerator import make_accelerator
from disco_zoo.training.build import seeded_teacher
from disco_zoo.training.replay import replay_for
from disco_zoo.training.run_data import open_training_images

FIRST_SEED = 1000  # apart from the caches that other contestants train with


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("recipe")
    parser.add_argument("--data", required=True)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    given = parser.parse_args()
    quota, former, blocks = Quota(), CacheFolder.write, itertools.count()

    def write(cache: CacheFolder, *block: Any) -> None:
        former(cache, *block)
        if next(blocks) == 0:
            quota.ready()
        else:
            quota.step_done()

    CacheFolder.write = write  # type: ignore[method-assign]
    for seed in itertools.count(FIRST_SEED):
        recipe = load_recipe(given.recipe, [*given.overrides, f"seed={seed}"])
        accelerator = make_accelerator(recipe, "cpu")
        teacher, source = seeded_teacher(recipe, accelerator.device), open_training_images(recipe, given.data)
        replay_for(recipe, teacher, source, accelerator=accelerator, workers=0)


if __name__ == "__main__":
    main()
