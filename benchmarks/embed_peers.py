"""`disco-zoo embed` against lightly-train's `embed` and timm's inference.py: whole commands, start-up included.

    python -m venv peers && peers/bin/pip install lightly-train==0.18.0
    git clone https://github.com/huggingface/pytorch-image-models   # inference.py is no part of the package
    python benchmarks/embed_peers.py --photos FOLDER --inference pytorch-image-models/inference.py \\
      --peers-python peers/bin/python --rounds 5 --json benchmarks/embed_peers.json

All embed the same files with EfficientNet-B0 of the same weights, batch and number of processes that decode. timm's
script crops and resizes as ours does; lightly-train's squashes the whole image, without antialiasing, so its features
are others. Each ratio is of one round; the smallest cosine is to a plain loop's features (`embed_speed.py`).
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from commands import Command, contest, table
from embed_speed import plain_colored, plain_loop, smallest_cosine
from safetensors.torch import save_file

from disco_zoo.models.load import NamedModel, load_model

CHECKED = 32  # images
ROOT = Path(__file__).resolve().parents[1]


def by_ours(folder: Path) -> np.ndarray:
    return np.load(folder / "features.npy")


def by_timm(folder: Path) -> np.ndarray:
    import pandas

    found = pandas.read_parquet(folder / "features.parquet").sort_index()
    return np.stack(found["logit"].tolist())


def by_lightly(folder: Path) -> np.ndarray:
    found = torch.load(folder / "features.pt", weights_only=True)
    order = sorted(range(len(found["filenames"])), key=lambda row: found["filenames"][row])
    return found["embeddings"][order].numpy()


def commands(given: argparse.Namespace, named: NamedModel, photos: Path, weights: Path) -> dict[str, Command]:
    size, resize = given.image_size, round(given.image_size * 256 / 224)
    means = ["--mean", *map(str, named.mean), "--std", *map(str, named.std)]
    expected = plain_loop(named, size, resize, CHECKED, 0)(sorted((photos / "all").iterdir())[:CHECKED])

    def cosine(read: Callable[[Path], np.ndarray]) -> Callable[[Path], dict[str, Any]]:
        return lambda folder: {"cosine": smallest_cosine(read(folder)[:CHECKED], expected)}

    loading = f"--batch-size {given.batch_size} --workers {given.workers}"
    own = f"-m disco_zoo embed {photos} --model {given.model} --out features.npy {loading}"
    own += f" --image-size {size} --resize-size {resize}"
    timms = f"{given.inference} {photos} --model efficientnet_b0 --checkpoint {weights} --num-classes 0 --device cpu"
    timms += f" --img-size {size} --crop-pct {size / resize} --interpolation bilinear --channels-last --topk 0"
    timms += f" {loading} --output-type logit --results-file features --results-format parquet --no-console-results"
    lightlys = f"{ROOT}/benchmarks/lightly_train_embed.py --data {photos} --weights {weights} --image-size {size}"
    lightlys += (
        f" --checkpoint {weights.with_suffix('.ckpt')} --batch-size {given.batch_size} --workers {given.workers}"
    )
    quiet = {"LIGHTLY_TRAIN_EVENTS_DISABLED": "1"}
    made = {
        "disco-zoo embed": Command([sys.executable, *own.split()], {"PYTHONPATH": str(ROOT)}, cosine(by_ours)),
        "timm's inference.py": Command([sys.executable, *timms.split(), *means], {}, cosine(by_timm)),
    }
    if given.peers_python:
        peers = [given.peers_python, *lightlys.split(), *means]
        made["lightly-train's embed"] = Command(peers, quiet, cosine(by_lightly))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", required=True, help="a folder of photos")
    parser.add_argument("--copies", type=int, default=4, help="of each photo")
    parser.add_argument("--images", type=int, default=112, help="of the folder")
    parser.add_argument("--inference", type=Path, required=True, help="timm's inference.py")
    parser.add_argument("--peers-python", help="of an environment with lightly-train; without it timm's script alone")
    parser.add_argument("--model", default="disco_effb0", help="an EfficientNet-B0")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1, help="to be added to the record")
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()
    given.inference = given.inference.resolve()
    named = load_model(given.model)
    named.backbone.eval()
    with tempfile.TemporaryDirectory() as name:
        photos, weights = Path(name) / "photos", Path(name) / "weights.safetensors"
        (photos / "all").mkdir(parents=True)
        files = plain_colored(given.photos, given.images)
        for number, file in enumerate(files * given.copies):
            shutil.copy(file, photos / "all" / f"{number:05d}.jpg")
        save_file(named.backbone.state_dict(), weights)
        setting = f"{len(files)} photos, {given.copies} times, {given.image_size} px, batch {given.batch_size}"
        setting += f", workers {given.workers}, {given.model}"
        made = commands(given, named, photos, weights)
        found = contest(given.json, made, given.rounds, setting, torch.get_num_threads())
    print(table(found, "disco-zoo embed"))
    for title, runs in found["runs"].items():
        print(f"smallest cosine, {title}: {min(run['cosine'] for run in runs):.6f}")


if __name__ == "__main__":
    main()
