"""Where a training step's time goes, besides forward and backward: python benchmarks/step_overhead.py

Runs the engine on noise images held in memory and adds up the time spent inside each part of the step. `data` is what
the step waits for: all views with `--workers 0`, which draws them in this process, else what workers are too late with.
`engine` is what remains: the loop, Accelerate, logs, the check of the loss.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from disco_zoo.config.recipe import Recipe, load_recipe
from disco_zoo.core.environment import benchmark_line
from disco_zoo.core.launcher import usable_cores
from disco_zoo.data.dataset import ImageSource
from disco_zoo.training.accelerator import make_accelerator
from disco_zoo.training.build import build_parts
from disco_zoo.training.pretraining import Pretraining
from disco_zoo.training.run_folder import RunFolder, recipe_settings
from disco_zoo.training.trainer import Trainer

PARTS = ("forward", "backward", "data", "optimiser", "EMA")
STEPS_A_RECORD = 10


class Noise(ImageSource):
    """Images of `side` pixels in memory."""

    def __init__(self, number: int, side: int) -> None:
        super().__init__("noise", "train", None, None)
        generator = np.random.default_rng(0)
        pixels = generator.integers(0, 256, (number, side, side, 3), dtype=np.uint8)
        self.images = [Image.fromarray(rows) for rows in pixels]

    def __len__(self) -> int:
        return len(self.images)

    def encoded(self, index: int) -> Image.Image:
        return self.images[index]

    def path(self, index: int) -> str:
        return f"{index}"

    def _hash_content(self, digest: Any) -> None:
        digest.update(b"noise")


@contextmanager
def timed(
    spent: dict[str, float], part: str, owner: Any, name: str, then: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Add the time inside `owner.name` to a part, then call `then`."""
    former: Callable[..., Any] = getattr(owner, name)

    def call(*args: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return former(*args, **options)
        finally:
            spent[part] += time.perf_counter() - began
            then()

    setattr(owner, name, call)
    try:
        yield
    finally:
        delattr(owner, name)


class Span:
    """From one moment between steps to a later one, with what was spent inside it."""

    def __init__(self, trainer: Trainer, spent: dict[str, float], first_step: int, last_step: int) -> None:
        self.trainer, self.spent, self.first_step, self.last_step = trainer, spent, first_step, last_step
        self.taken: dict[str, float] = {}
        self._began, self._waited = 0.0, 0.0

    def step_done(self) -> None:
        step = self.trainer.position.step + 1  # the engine counts it right after
        if step == self.first_step:
            self.spent.clear()
            self._began, self._waited = time.perf_counter(), self.trainer.wait.seconds
        elif step == self.last_step:
            whole = time.perf_counter() - self._began
            self.taken = {**self.spent, "data": self.trainer.wait.seconds - self._waited, "whole": whole}


def shares(recipe: Recipe, source: ImageSource, steps: int, workers: int) -> dict[str, float]:
    """Milliseconds a step of each part, over `steps` steps after ten in which workers start and all is warm."""
    spent: dict[str, float] = defaultdict(float)
    with tempfile.TemporaryDirectory() as folder:
        accelerator = make_accelerator(recipe, "cpu")
        run_folder = RunFolder(Path(folder), recipe_settings(recipe), resume=False)
        parts = build_parts(recipe, source, accelerator.device)
        task = Pretraining(recipe, parts, source, accelerator=accelerator, workers=workers)
        trainer = Trainer(task, run_folder)
        span = Span(trainer, spent, STEPS_A_RECORD, STEPS_A_RECORD + steps)
        with (
            timed(spent, "forward", task.method, "forward"),
            timed(spent, "backward", accelerator, "backward"),
            timed(spent, "optimiser", task.optimizer, "step"),
            timed(spent, "EMA", parts.method, "after_step", then=span.step_done),
        ):
            trainer.train(max_steps=STEPS_A_RECORD + steps)
        run_folder.close()
    return {part: 1000 * span.taken[part] / steps for part in (*PARTS, "whole")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="pocket/disco_r18.mocov2_fmnist")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0, help="processes that draw views; 0: this one does")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    args = parser.parse_args()
    if args.workers and args.workers + args.threads > usable_cores():
        parser.error(
            f"{args.workers} workers and {args.threads} threads want more than the {usable_cores()} cores here"
        )
    torch.set_num_threads(args.threads)
    fixed = [
        f"optim.batch_size={args.batch_size}",
        "optim.epochs=100",
        "optim.warmup_epochs=0",
        f"log.log_every_steps={STEPS_A_RECORD}",
        "log.checkpoint_every_steps=100000",
        "log.knn_every_epochs=0",
    ]
    recipe = load_recipe(args.recipe, [*fixed, *args.overrides])
    # All steps lie in one epoch: a checkpoint is written at its end.
    source = Noise(args.batch_size * (STEPS_A_RECORD + args.steps + 1), recipe.view_size)
    rounds = [shares(recipe, source, args.steps, args.workers) for _ in range(args.rounds)]
    print(f"{benchmark_line(args.threads)}, workers: {args.workers}; rounds of {args.steps} steps: {args.rounds}\n")
    print("| part | ms a step | share of the step, % |\n|---|---:|---:|")
    for part in (*PARTS, "engine"):
        each = [r["whole"] - sum(r[p] for p in PARTS) if part == "engine" else r[part] for r in rounds]
        share = statistics.median(100 * value / r["whole"] for value, r in zip(each, rounds, strict=True))
        print(f"| {part} | {statistics.median(each):.1f} | {share:.1f} |")
    outside = statistics.median(100 * (1 - (r["forward"] + r["backward"]) / r["whole"]) for r in rounds)
    print(f"| outside forward and backward | | {outside:.1f} |")
    print(f"| step | {statistics.median(r['whole'] for r in rounds):.1f} | 100 |")


if __name__ == "__main__":
    main()
