"""How much sooner the shipped photo recipe reaches the kNN of the straightforward one, in runs that take turns.

    python benchmarks/time_to_quality.py --data tiny_train.parquet [--images 10000] [--seeds 0,1,2] [--out runs/time]

The straightforward recipe: DisCo at one size, the teacher asked each step. Its kNN after its budget is the target. The
shipped one replays a teacher cache and takes one view; its time is that of the first measured kNN at
or above the target, without the time that measuring takes. The cache is built once for all seeds; it is counted in
full, and shared among the three students that use it. Ratios are of one machine, seed by seed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from disco_zoo.config.recipe import load_recipe
from disco_zoo.core.environment import benchmark_line
from disco_zoo.training.metrics import read_metrics

STRAIGHT, SHIPPED = "photos/disco_effb0.disco_lite2_photos", "photos/disco_effb0.feature_lite2_photos"
STUDENTS_OF_A_CACHE = 3
SHARED = ("log.knn_every_epochs=0.1", "log.log_every_steps=1")
ASKED = ("teacher.cache_views=null", "log.knn_every_epochs=1000")  # its kNN counts at the end alone


def disco_zoo(*arguments: object) -> float:
    """Run one command; return its seconds.

    Raises:
        SystemExit: it failed; its own message has been shown.
    """
    begun = time.monotonic()
    if subprocess.run([sys.executable, "-m", "disco_zoo", *map(str, arguments)], check=False).returncode:
        raise SystemExit(f"failed: disco-zoo {' '.join(map(str, arguments))}")
    return time.monotonic() - begun


def curve_of(folder: Path) -> list[tuple[float, float]]:
    """(training seconds, kNN in percent) at each measurement of a run; seconds leave out the measuring."""
    batch_size = load_recipe(str(folder / "recipe.yaml")).optim.batch_size
    step, seconds, curve = 0, 0.0, []
    for row in read_metrics(folder):
        if "images_per_s" in row:  # over the steps since the last such row
            seconds += (row["step"] - step) * batch_size / row["images_per_s"]
            step = row["step"]
        if "knn20_top1" in row:
            curve.append((seconds, row["knn20_top1"]))
    return curve


def seconds_to(curve: list[tuple[float, float]], target: float) -> float | None:
    """Of the first measurement at or above the target; None where there is none."""
    return next((seconds for seconds, knn in curve if knn >= target), None)


def pair(seed: int, given: argparse.Namespace, changes: list[str]) -> dict[str, Any]:
    """Both recipes with one seed."""
    folders = {name: given.out / f"{name}_{seed}" for name in ("straight", "shipped")}
    common = ["--data", given.data, "--seed", seed, "--workers", 0, "--resume"]
    for name, recipe in (("straight", STRAIGHT), ("shipped", SHIPPED)):
        own = [part for one in ASKED for part in ("--set", one)] if name == "straight" else []
        folder = folders[name]
        resume = common if (folder / "checkpoint.pt").is_file() else common[:-1]
        if not (folder / "report.md").is_file():
            disco_zoo("train", recipe, *resume, *changes, *own, "--out", folder)
    straight, shipped = (curve_of(folder) for folder in folders.values())
    budget, target = straight[-1]
    return {
        "seed": seed,
        "target": target,
        "budget": budget,
        "reached": seconds_to(shipped, target),
        "last": shipped[-1][1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--images", type=int, default=10000)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--out", type=Path, default=Path("runs/time_to_quality"))
    parser.add_argument("--set", action="append", default=[], help="more changes of both recipes")
    given = parser.parse_args()
    overrides = [f"data.max_images={given.images}", *SHARED, *given.set]
    changes = [part for one in overrides for part in ("--set", one)]
    cache = disco_zoo("cache", "build", SHIPPED, "--data", given.data, "--workers", 0, *changes)
    print(f"{benchmark_line(torch.get_num_threads())}; cache: {cache:.0f} s, once\n")
    print("| seed | target kNN | budget (s) | reached (s) | ratio | with a third of the cache | with all of it |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for seed in map(int, given.seeds.split(",")):
        row = pair(seed, given, changes)
        start = f"| {seed} | {row['target']:.1f} | {row['budget']:.0f} |"
        if row["reached"] is None:
            print(f"{start} not reached, {row['last']:.1f} at the end | - | - | - |", flush=True)
            continue
        ratios = [(row["reached"] + part * cache) / row["budget"] for part in (0, 1 / STUDENTS_OF_A_CACHE, 1)]
        print(f"{start} {row['reached']:.0f} | {' | '.join(f'{ratio:.2f}' for ratio in ratios)} |", flush=True)


if __name__ == "__main__":
    main()
