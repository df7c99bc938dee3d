"""`disco-zoo evaluate knn` and `linear` (fast) against a plain loop with faiss and scikit-learn, end to end.

    python benchmarks/evaluate_peers.py --task knn --train cifar10_train.parquet --test cifar10_test.parquet \\
      --json benchmarks/evaluate_knn.json

Whole commands in turns, start-up and decoding included, with the same images, weights, input size and number of
processes that decode; `plain_evaluate.py` is the plain loop. `--share 10` takes every tenth image of both splits.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.parquet
import torch
from commands import Command, contest, table
from safetensors.torch import save_file

from disco_zoo.models.load import load_model

ROOT = Path(__file__).resolve().parents[1]


def figures(folder: Path) -> dict[str, Any]:
    """What the command printed as JSON, with or without more around it."""
    for line in (folder / "log").read_text(errors="replace").splitlines():
        if line.startswith("{"):
            found = json.loads(line)
            return {"figures": found.get("figures", found)}
    raise SystemExit("no figures")


def every(path: str, share: int, to: Path) -> Path:
    rows = pyarrow.parquet.read_table(path)
    pyarrow.parquet.write_table(rows.take(list(range(0, rows.num_rows, share))), to)
    return to


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=["knn", "linear"], required=True)
    parser.add_argument("--train", required=True, help="a parquet of encoded images and labels")
    parser.add_argument("--test", required=True)
    parser.add_argument("--share", type=int, default=1, help="one image in so many")
    parser.add_argument("--model", default="disco_effb0", help="an EfficientNet-B0")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--engines", nargs="+", default=["torch"])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1, help="to be added to the record")
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()
    named = load_model(given.model)
    size, resize = given.image_size, round(given.image_size * 256 / 224)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train, test, weights = folder / "train.parquet", folder / "test.parquet", folder / "weights.safetensors"
        every(given.train, given.share, train)
        every(given.test, given.share, test)
        save_file(named.backbone.state_dict(), weights)
        sizes = f"--image-size {size} --resize-size {resize} --workers {given.workers}"
        means = ["--mean", *map(str, named.mean), "--std", *map(str, named.std)]
        own = f"-m disco_zoo evaluate {given.task} {given.model} --data {train} --eval-data {test} {sizes} --json"
        plain = f"{ROOT}/benchmarks/plain_evaluate.py {given.task} --train {train} --test {test} {sizes}"
        made = {
            f"disco-zoo, {engine}": Command(
                [sys.executable, *own.split(), "--engine", engine], {"PYTHONPATH": str(ROOT)}, figures
            )
            for engine in given.engines
        }
        made["plain loop"] = Command([sys.executable, *plain.split(), "--weights", str(weights), *means], {}, figures)
        setting = f"{given.task}, one image in {given.share}, {size} px, {given.model}, workers {given.workers}"
        found = contest(given.json, made, given.rounds, setting, torch.get_num_threads())
    print(table(found, f"disco-zoo, {given.engines[0]}"))
    for title, runs in found["runs"].items():
        print(f"{title}: {runs[-1]['figures']}")


if __name__ == "__main__":
    main()
