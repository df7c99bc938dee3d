"""Where a training step's time goes, besides forward, backward and data: python benchmarks/step_overhead.py

Runs the engine on noise images held in memory and adds up the time spent inside each part of the step. `engine` is what
remains: the loop, Accelerate, logs, the check of the loss.
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

from disco_zoo.accelerator import make_accelerator
from disco_zoo.build import build_parts
from disco_zoo.datasets import ImageSource
from disco_zoo.engine import Trainer
from disco_zoo.recipe import Recipe, load_recipe
from disco_zoo.run_folder import RunFolder

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
def timed(spent: dict[str, float], part: str, owner: Any, name: str) -> Iterator[None]:
    """Add the time inside `owner.name` to a part."""
    former: Callable[..., Any] = getattr(owner, name)

    def call(*args: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return former(*args, **options)
        finally:
            spent[part] += time.perf_counter() - began

    setattr(owner, name, call)
    try:
        yield
    finally:
        delattr(owner, name)


def shares(recipe: Recipe, source: ImageSource, steps: int) -> dict[str, float]:
    """Milliseconds a step of each part, over `steps` steps after ten for warming up."""
    spent: dict[str, float] = defaultdict(float)
    with tempfile.TemporaryDirectory() as folder:
        accelerator = make_accelerator(recipe, "cpu")
        run_folder = RunFolder(Path(folder), recipe, resume=False)
        parts = build_parts(recipe, source, accelerator.device)
        trainer = Trainer(recipe, parts, source, run_folder, accelerator=accelerator)
        trainer.train(max_steps=STEPS_A_RECORD)
        data_before, began = trainer.position.data_wait_seconds, time.perf_counter()
        with (
            timed(spent, "forward", trainer.method, "forward"),
            timed(spent, "backward", accelerator, "backward"),
            timed(spent, "optimiser", trainer.optimizer, "step"),
            timed(spent, "EMA", parts.method, "after_step"),
            timed(spent, "saving", trainer, "_save"),
        ):
            trainer.train(max_steps=STEPS_A_RECORD + steps)
        whole = time.perf_counter() - began - spent["saving"]  # once, at the end
        spent["data"] = trainer.position.data_wait_seconds - data_before
        run_folder.close()
    return {part: 1000 * spent[part] / steps for part in PARTS} | {"whole": 1000 * whole / steps}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="pocket/disco_r18.mocov2_fmnist")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    fixed = [
        f"optim.batch_size={args.batch_size}", "optim.epochs=100", "optim.warmup_epochs=0",
        f"log.log_every_steps={STEPS_A_RECORD}", "log.checkpoint_every_steps=100000", "log.knn_every_epochs=0",
    ]  # fmt: skip
    recipe = load_recipe(args.recipe, [*fixed, *args.overrides])
    # All steps lie in one epoch: a checkpoint is written at its end.
    source = Noise(args.batch_size * (STEPS_A_RECORD + args.steps + 1), recipe.view_size)
    rounds = [shares(recipe, source, args.steps) for _ in range(args.rounds)]
    print("| part | ms a step | share of the step, % |\n|---|---:|---:|")
    for part in (*PARTS, "engine"):
        each = [r["whole"] - sum(r[p] for p in PARTS) if part == "engine" else r[part] for r in rounds]
        share = statistics.median(100 * value / r["whole"] for value, r in zip(each, rounds, strict=True))
        print(f"| {part} | {statistics.median(each):.1f} | {share:.1f} |")
    print(f"| step | {statistics.median(r['whole'] for r in rounds):.1f} | 100 |")


if __name__ == "__main__":
    main()
