"""What it costs and saves that a probe by SGD sees K views of each image again and again, instead of new ones.

    python benchmarks/crop_cost.py --train cifar10_train.parquet --test cifar10_test.parquet \\
      --json benchmarks/crop_cost.json

The same probe, network and images with new views in each epoch and with K of each image (`evaluate linear --crops K`).
Part of the images, classes in turn. Each call adds what is not in the record.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from disco_zoo.core.environment import benchmark_line
from disco_zoo.evaluation.subject import load_subject
from disco_zoo.evaluation.tasks import ProbeOptions, measure_linear


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--model", default="disco_effb0")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--batches", type=int, default=4, help="of 256 images, of each split")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--crops", type=int, nargs="+", default=[1, 2, 4, 8, 0], help="0 for new ones in each epoch")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()
    found = json.loads(given.json.read_text(encoding="utf-8")) if given.json.is_file() else {}
    setting = f"{given.model}, {given.image_size} px, {256 * given.batches} images of each split, {given.epochs} epochs"
    found |= {"hardware": benchmark_line(torch.get_num_threads()), "setting": setting}
    options = {"image_size": given.image_size, "max_batches": given.batches, "workers": given.workers}
    subject = load_subject(model=given.model, data=given.train, eval_data=given.test, **options)
    for seed in given.seeds:
        for crops in given.crops:
            runs = found.setdefault("runs", {}).setdefault(str(crops), {})
            if str(seed) in runs:
                continue
            began = time.perf_counter()
            figures = measure_linear(
                subject, "disco", ProbeOptions(given.epochs, seed=seed, crops=crops or None)
            ).figures
            runs[str(seed)] = {"seconds": time.perf_counter() - began, **figures}
            given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(
        f"{found['hardware']}; {setting}, protocol disco\n\n| views | last epoch | best epoch | s |\n|---|---|---|---|"
    )
    for crops, runs in found["runs"].items():
        columns = ("linear_last_top1", "linear_top1", "seconds")
        print(f"| {crops} |", " | ".join(", ".join(f"{run[key]:.1f}" for run in runs.values()) for key in columns), "|")


if __name__ == "__main__":
    main()
