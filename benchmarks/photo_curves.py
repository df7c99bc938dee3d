"""What a student learns from more images, more steps, another teacher, other sizes: kNN and linear, one run a point.

    python benchmarks/photo_curves.py --data tiny_train.parquet [--only images] [--seeds 0,1,2] [--out FOLDER]

EfficientNet-B0 from EfficientNet-Lite0's tensors by `feature` (photos_methods/feature.yaml). Every student is measured
alike: the test split beside --data, with the last 10,000 training images as bank. A point that is there is not computed
again; photo_curves.json grows point by point. A point takes two to fifteen minutes of one thread.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pyarrow.parquet as pq
import torch

from disco_zoo.core.environment import benchmark_line

HERE = Path(__file__).parent
RECIPE = HERE / "photos_methods/feature.yaml"
BANK_IMAGES = 10_000
# Curve -> label of a point -> changes of the recipe, which has 10,000 images, two epochs (312 steps), lite2 at 128 px.
CURVES: dict[str, dict[str, dict[str, Any]]] = {
    "images": {
        "1,000": {"data.max_images": 1_000, "optim.epochs": 20},
        "3,000": {"data.max_images": 3_000, "optim.epochs": 7},
        "10,000": {},
        "20,000": {"data.max_images": 20_000, "optim.epochs": 1, "teacher.cache_views": 1},
    },
    "images, five times the steps": {
        "1,000": {"data.max_images": 1_000, "optim.epochs": 104},
        "10,000": {"optim.epochs": 10},
        "30,000": {"data.max_images": 30_000, "optim.epochs": 3},
        "100,000": {"data.max_images": 100_000, "optim.epochs": 1, "teacher.cache_views": 1},
    },
    "steps": {
        "156": {"optim.epochs": 1, "teacher.cache_views": 1},
        "312": {},
        "624": {"optim.epochs": 4},
        "1,560": {"optim.epochs": 10},
    },
    "teacher": {
        "lite0 at 128 px": {"teacher.source": "lite0"},
        "lite2 at 64 px": {"teacher.image_size": 64},
        "lite2 at 128 px": {},
        "lite2 at 224 px": {"teacher.image_size": 224},
    },
    "student": {
        "64 px": {},
        "96 px": {"student.image_size": 96, "eval.resize_size": 96},
    },
}
Point = dict[str, Any]


def split_data(data: Path, out: Path) -> tuple[Path, Path]:
    """The training images without labels, so that none of a point's are its bank; and the bank, with the test split."""
    images, bank = out / "images.parquet", out / "bank_train.parquet"
    if not bank.exists():
        out.mkdir(parents=True, exist_ok=True)
        table = pq.read_table(data)
        shutil.copy(data.with_name(data.name.replace("train", "test")), out / "bank_test.parquet")
        pq.write_table(table.select(["image"]).replace_schema_metadata(), images)
        pq.write_table(table.slice(table.num_rows - BANK_IMAGES), bank)
    return images, bank


def figures_of(changes: Point, seed: int, given: argparse.Namespace) -> Point:
    """Train one student, or find it trained; its figures.

    Raises:
        SystemExit: training failed, its own message has been shown; or its student was not measured.
    """
    settings = [f"{key}={value}" for key, value in sorted(changes.items())]
    name = "_".join(one.replace(".", "-").replace("=", "-") for one in settings) or "as_it_is"
    folder = given.out / name / str(seed)
    facts = folder / "run.json"
    if not (facts.exists() and json.loads(facts.read_text()).get("figures")):
        images, bank = split_data(given.data, given.out)
        command = ["train", RECIPE, "--data", images, "--eval-data", bank]
        command += ["--seed", seed, "--workers", given.workers, "--out", folder]
        command += [part for one in settings for part in ("--set", one)]
        command += ["--resume"] if (folder / "checkpoint.pt").exists() else []
        if subprocess.run([sys.executable, "-m", "disco_zoo", *map(str, command)], check=False).returncode:
            raise SystemExit(f"failed: {settings}")
    run = json.loads(facts.read_text())
    if not run.get("figures"):
        raise SystemExit(f"{folder} was not measured; its report.md says why")
    return {"steps": run["steps"], **run["figures"]}


def mean(points: list[Point], metric: str) -> float:
    return statistics.fmean(point[metric] for point in points)


def draw(results: dict[str, dict[str, list[Point]]], file: Path) -> None:
    """One panel a curve, kNN and linear."""
    figure, panels = plt.subplots(1, len(results), figsize=(3.2 * len(results), 3.2), sharey=True, layout="constrained")
    for panel, (curve, points) in zip([panels] if len(results) == 1 else panels, results.items(), strict=True):
        for metric, title in (("linear_top1", "linear"), ("knn20_top1", "kNN, k = 20")):
            heights = [mean(runs, metric) for runs in points.values()]
            line = "" if curve == "teacher" else "-"  # which has no order
            panel.plot(list(points), heights, marker="o", linestyle=line, label=title)
            for label, runs in points.items():
                panel.plot([label] * len(runs), [run[metric] for run in runs], ".", color="grey", markersize=3)
        panel.set_title(curve)
        plt.setp(panel.get_xticklabels(), rotation=30, ha="right", rotation_mode="anchor")
        panel.grid(alpha=0.3)
    figure.axes[0].set_ylabel("top-1 on Tiny-ImageNet (%)")
    figure.axes[0].legend()
    figure.savefig(file, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Tiny-ImageNet's training images, tiny_train.parquet")
    parser.add_argument("--only", action="append", choices=CURVES, help="repeatable; default: all curves")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/photo_curves"))
    given = parser.parse_args()
    record = HERE / "photo_curves.json"
    for curve in given.only or CURVES:
        for label, changes in CURVES[curve].items():
            for seed in given.seeds.split(","):
                found = json.loads(record.read_text()) if record.exists() else {"points": {}}
                found["machine"] = benchmark_line(torch.get_num_threads())
                point = figures_of(changes, int(seed), given)
                found["points"].setdefault(curve, {}).setdefault(label, {})[seed] = point
                record.write_text(json.dumps(found, indent=1, sort_keys=False) + "\n")
                print(
                    f"{curve}: {label}, seed {seed}: kNN {point['knn20_top1']:.1f}, linear {point['linear_top1']:.1f}"
                )
    points = json.loads(record.read_text())["points"]
    ordered = {
        curve: {label: [*points[curve][label].values()] for label in labels if label in points[curve]}
        for curve, labels in CURVES.items()
        if curve in points
    }
    draw(ordered, HERE / "photo_curves.png")


if __name__ == "__main__":
    main()
