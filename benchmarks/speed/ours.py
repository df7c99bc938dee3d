"""Our trainer as it is: recipe, loader, engine, logs; nothing is left out but the checkpoint at the end."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from contestant import Quota
from torch import Tensor

from disco_zoo.config.recipe import load_recipe
from disco_zoo.models.teacher import Teacher
from disco_zoo.training.run import Run, RunOptions
from disco_zoo.training.run_data import open_data


def free(teacher: Teacher, views: Tensor, size: int | None = None) -> Tensor:
    """Rows that nobody computed."""
    return views.new_ones((), dtype=torch.float32).expand(len(views), teacher.embed_dim)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("recipe")
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--free-teacher", action="store_true", help="targets cost nothing: what a cache is measured by")
    given = parser.parse_args()
    if given.free_teacher:
        Teacher.__call__ = free  # type: ignore[method-assign]
    options = RunOptions(device="cpu", workers=0)
    recipe = load_recipe(given.recipe, given.overrides)
    run = Run(recipe, open_data(recipe, given.data), given.out, options, label="ours")
    quota, former, steps = Quota(), run.parts.method.after_step, [0]

    def after_step() -> None:
        former()
        steps[0] += 1
        if steps[0] == 1:
            quota.ready()
        else:
            quota.step_done()

    run.parts.method.after_step = after_step  # type: ignore[method-assign]
    run.train()


if __name__ == "__main__":
    main()
