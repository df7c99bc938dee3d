"""Batches a second of the training loader from 10^3 to 10^7 rows: python benchmarks/rows_scale.py

One shard of tiny images, and indexes that repeat its rows. Every size is opened by `open_source` and read by the loader
that training uses; sizes take turns, round by round. "begin" is the time from a new epoch to its first batch, where
the epoch's order is drawn; "batches/s" and the ratio to the smallest size are of the batches after it.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tarfile
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from repeated_index import repeat_rows

from disco_zoo.config.recipe import load_recipe
from disco_zoo.core.environment import benchmark_line
from disco_zoo.data.dataset import ImageSource
from disco_zoo.data.open_source import open_source
from disco_zoo.data.webdataset.index_build import build_index
from disco_zoo.methods.base import Method
from disco_zoo.training.epoch_loader import epoch_loader

SIZES = (10**3, 10**4, 10**5, 10**6, 10**7)
BATCH_SIZE = 64


def write_shard(folder: Path, images: int = 256) -> None:
    """Noise of 32 x 32 pixels as JPEGs, with labels."""
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (images, 32, 32, 3), dtype=np.uint8)
    with tarfile.open(folder / "shard-000.tar", "w") as archive:
        for number, image in enumerate(pixels):
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "JPEG")
            for suffix, content in (("jpg", buffer.getvalue()), ("cls", str(number % 10).encode())):
                info = tarfile.TarInfo(f"{number:04d}.{suffix}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def timed(source: ImageSource, epoch: int, workers: int, batches: int) -> tuple[float, float]:
    """Seconds to the first batch of an epoch, and seconds a batch of those after it."""
    recipe = load_recipe("pocket/disco_r18.mocov2_fmnist", [f"optim.batch_size={BATCH_SIZE}"])
    method = cast(Method, SimpleNamespace(num_views=2, companions=None))
    options: dict[str, Any] = {"workers": workers, "device": torch.device("cpu"), "rank": 0, "num_processes": 1}
    began = time.perf_counter()
    loader = iter(epoch_loader(recipe, source, method, epoch=epoch, start_step=0, **options))
    next(loader)
    begun = time.perf_counter()
    for _ in range(batches):
        next(loader)
    return begun - began, (time.perf_counter() - begun) / batches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1])
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_shard(folder / "shards")
        few = build_index(folder / "shards")[0]
        for rows in SIZES:
            repeat_rows(few, folder / str(rows), rows)
        print(f"{benchmark_line(1)}; batches of {BATCH_SIZE} images, {args.rounds} rounds of {args.batches} batches\n")
        print("| rows | workers | opened (ms) | begin (ms) | batches/s | speed against 10^3 rows, median [rounds] |")
        print("|---:|---:|---:|---:|---:|---:|")
        for workers in args.workers:
            print_rows(folder, workers, args.rounds, args.batches)


def print_rows(folder: Path, workers: int, rounds: int, batches: int) -> None:
    sources, opened = [], []
    for rows in SIZES:
        began = time.perf_counter()
        sources.append(open_source(folder / str(rows)))
        opened.append(1000 * (time.perf_counter() - began))
    found: list[list[tuple[float, float]]] = []
    for turn in range(rounds + 1):  # the first one warms up
        found.append([timed(source, turn, workers, min(batches, SIZES[0] // BATCH_SIZE - 1)) for source in sources])
    for place, rows in enumerate(SIZES):
        begins, seconds = zip(*(turn[place] for turn in found[1:]), strict=True)
        ratios = sorted(turn[0][1] / turn[place][1] for turn in found[1:])
        speed = f"{1 / statistics.median(seconds):.2f}"
        spread = f"{statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]"
        begin = f"{1000 * statistics.median(begins):.0f}"
        print(f"| {rows} | {workers} | {opened[place]:.0f} | {begin} | {speed} | {spread} |", flush=True)


if __name__ == "__main__":
    main()
