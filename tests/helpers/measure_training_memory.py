"""Train a recipe for three steps and print, in MiB, the peak of this process before and after.

    python tests/helpers/measure_training_memory.py FOLDER STUDENT IMAGE_SIZE BATCH_SIZE METHOD

A toy run of the same method goes first: what it leaves behind, imports and compiled kernels, is no part of a step.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch
from method_runs import method_recipe
from tiny_runs import subprocess_environment, toy_parquet

from disco_zoo.config.recipe import Recipe
from disco_zoo.core.process import peak_memory_mib
from disco_zoo.training.run import Run, RunOptions
from disco_zoo.training.run_data import open_data

STEPS = 3


def measured_recipe(student: str, image_size: int, batch_size: int, method: str) -> Recipe:
    """Of the toy recipe's settings with a student worth measuring."""
    recipe = method_recipe(
        method, student__model=student, student__image_size=image_size, student__head_hidden_dim=2048
    )
    larger = {"optim": recipe.optim.model_copy(update={"batch_size": batch_size, "epochs": STEPS})}
    if "queue_size" in recipe.method:
        larger["method"] = {**recipe.method, "queue_size": 1024}
    return recipe.model_copy(update=larger)


def peak_of_training(
    folder: Path, student: str, image_size: int, batch_size: int, method: str, **environment: str
) -> float:
    """MiB that real steps take above what a toy run has taken, in a process of its own."""
    result = subprocess.run(
        [sys.executable, __file__, folder, student, str(image_size), str(batch_size), method],
        env={**subprocess_environment(), **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=280,
    )
    peaks = json.loads(result.stdout.splitlines()[-1])
    return float(peaks["peak_mib"] - peaks["baseline_mib"])


def main(folder: Path, student: str, image_size: int, batch_size: int, method: str) -> None:
    torch.set_num_threads(1)
    data = toy_parquet(folder / "data", num_train=batch_size)
    peaks = []
    for name, recipe in (
        ("toy", method_recipe(method)),
        ("real", measured_recipe(student, image_size, batch_size, method)),
    ):
        options = RunOptions(device="cpu", workers=0, max_steps=STEPS)
        run = Run(recipe, open_data(recipe, str(data)), folder / name, options, label=name)
        run.train()
        run.close()
        peaks.append(peak_memory_mib())
    print(json.dumps({"baseline_mib": peaks[0], "peak_mib": peaks[1]}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
