"""`disco-zoo finetune` against timm's train.py with equal settings: whole commands, start-up and measuring included.

    git clone https://github.com/huggingface/pytorch-image-models   # train.py is no part of the package
    python benchmarks/finetune_peers.py --train imagenette_train.parquet --test imagenette_test.parquet --images 200 \\
      --epochs 3 --script pytorch-image-models/train.py --json benchmarks/finetune_200.json

Both begin with the same EfficientNet-B0, see the same photos (the first of each class) in batches of one size, crops
and flips of one policy, and measure once, at the end, on the same test photos (--timm-epochs N gives train.py more
epochs, to see how long it takes to the same accuracy): AdamW, layer decay 0.75, weight decay
0.05, a cosine after an epoch of warm-up, label smoothing 0.1. `images_per_s` is each program's own: of its steps alone.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import statistics
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet
import torch
from commands import Command, contest, ratios, table
from safetensors.torch import save_file

from disco_zoo.models.load import load_model

ROOT = Path(__file__).resolve().parents[1]
RATE = re.compile(r"\(\s*[\d.]+s,\s*([\d.]+)/s\)")  # timm's mean over the steps of the epoch


def by_ours(folder: Path) -> dict[str, Any]:
    facts = json.loads((folder / "run" / "run.json").read_text())
    return {"top1": facts["figures"]["top1"], "images_per_s": facts["images_per_s"]}


def by_timm(folder: Path) -> dict[str, Any]:
    rates = RATE.findall((folder / "log").read_text(errors="replace"))
    last = list(csv.DictReader((folder / "run" / "timm" / "summary.csv").open()))[-1]
    return {"top1": float(last["eval_top1"]), "images_per_s": float(rates[-1])}


def write_classes(path: str, images: int, to: Path) -> None:
    """A folder a class with the first images of each."""
    table = pyarrow.parquet.ParquetFile(path)
    labels = table.read(["label"])["label"].to_pylist()
    each = images // len(set(labels))
    written: Counter[int] = Counter()
    for batch in table.iter_batches(64):  # photos of 224 px are a gigabyte of rows
        for row in batch.to_pylist():
            label = row["label"]
            if written[label] < each:
                place = to / str(label) / f"{written[label]:05d}.jpg"
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(row["image"]["bytes"])
                written[label] += 1


def commands(given: argparse.Namespace, folder: Path) -> dict[str, Command]:
    named = load_model(given.model)
    weights = folder / "weights.safetensors"
    save_file(named.backbone.state_dict(), weights)
    batch = f"--batch-size {given.batch_size} --workers {given.workers}"
    own = f"-m disco_zoo finetune {given.model} --data {folder}/train --eval-data {folder}/validation --out run {batch}"
    own += f" --epochs {given.epochs}"
    own += f" --image-size 224 --val-fraction 0 --lr {given.lr} --layer-decay 0.75"
    own += f" --set warmup={min(0.5, 1 / given.epochs)}"
    timms = f"{given.script} --data-dir {folder} --output run --experiment timm --device cpu {batch} --num-classes 10"
    timm_epochs = given.timm_epochs or given.epochs
    timms += f" --epochs {timm_epochs}"
    timms += f" --model efficientnet_b0 --pretrained --pretrained-path {weights} --img-size 224 --crop-pct 0.875"
    timms += f" --opt adamw --lr {given.lr} --weight-decay 0.05 --layer-decay 0.75 --sched cosine --sched-on-updates"
    timms += f" --warmup-epochs 1 --warmup-lr 0 --min-lr 0 --val-interval {timm_epochs} --validation-batch-size 128"
    timms += " --scale 0.35 1 --color-jitter 0 --interpolation bilinear --train-interpolation bilinear --smoothing 0.1"
    timms += " --channels-last"
    timms += f" --log-interval 1 --mean {' '.join(map(str, named.mean))} --std {' '.join(map(str, named.std))}"
    return {
        "disco-zoo finetune": Command([sys.executable, *own.split()], {"PYTHONPATH": str(ROOT)}, by_ours),
        "timm's train.py": Command([sys.executable, *timms.split()], {}, by_timm),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True, help="a parquet of photos of ten classes")
    parser.add_argument("--test", required=True)
    parser.add_argument("--script", type=Path, required=True, help="timm's train.py")
    parser.add_argument("--images", type=int, default=200, help="to train on")
    parser.add_argument("--test-images", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--timm-epochs", type=int, help="of train.py, where they are to be others; one run, no warm-up")
    parser.add_argument("--batch-size", type=int, default=40)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--model", default="disco_effb0", help="an EfficientNet-B0")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1, help="to be added to the record")
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()
    given.script = given.script.resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_classes(given.train, given.images, folder / "train")
        write_classes(given.test, given.test_images, folder / "validation")
        made = commands(given, folder)
        setting = f"{given.images} photos, {given.epochs} epochs, measured on {given.test_images}, 224 px"
        setting += f", batch {given.batch_size}, lr {given.lr}, workers {given.workers}, {given.model}"
        setting += f", {given.timm_epochs} epochs of train.py" if given.timm_epochs else ""
        warm_up = given.timm_epochs is None
        found = contest(given.json, made, given.rounds, setting, torch.get_num_threads(), warm_up=warm_up)
    ours = "disco-zoo finetune"
    print(table(found, ours))
    for title, runs in found["runs"].items():
        speed, top1 = (statistics.median(run[key] for run in runs) for key in ("images_per_s", "top1"))
        slower = 1 / ratios(found, title, ours, "images_per_s")[0]
        print(f"{title}: {top1:.1f} % top-1, {speed:.1f} images/s in steps, ours {slower:.2f} times that")


if __name__ == "__main__":
    main()
