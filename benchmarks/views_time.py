"""CPU time of two views of a photo, plain torchvision against ours: python benchmarks/views_time.py --photos FOLDER

Both decode the photo from memory and draw the same two views, in turns, photo by photo, on one thread. A ratio is that
of a round over all photos; CPU time, which other work on the machine disturbs least. "difference" is the mean one of
their pixels, in levels of 256.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from plain_views import plain_pipeline
from torch import Tensor

from disco_zoo.core.environment import benchmark_line
from disco_zoo.core.random_streams import drawing_from
from disco_zoo.data.open_source import open_source
from disco_zoo.data.source_image import SourceImage, to_rgb
from disco_zoo.transforms.view_recipes import VIEW_RECIPES, draw_view

CASES = (
    ("moco_v2", 224),
    ("moco_v2", 96),
    ("moco_v2", 32),
    ("moco_v1", 224),
    ("swav", 224),
    ("simclr", 224),
    ("plain", 224),
    ("plain", 32),
)
VIEWS = 2
Draw = Callable[[bytes, int], list[Tensor]]


def ways(recipe: str, size: int) -> tuple[Draw, Draw]:
    """The plain way and ours from a file's bytes and a number to its views."""
    transform, view = plain_pipeline(recipe, size), VIEW_RECIPES[recipe](size)

    def plain(encoded: bytes, index: int) -> list[Tensor]:
        image, views = to_rgb(Image.open(io.BytesIO(encoded))), []
        for number in range(VIEWS):
            with drawing_from("view", 0, 0, index, number):
                views.append(transform(image))
        return views

    def ours(encoded: bytes, index: int) -> list[Tensor]:
        image = SourceImage(encoded)
        return [draw_view(view, image, 0, 0, index, number) for number in range(VIEWS)]

    return plain, ours


def row_of(recipe: str, size: int, files: list[bytes], rounds: int) -> str:
    """One line of the table."""
    draws = ways(recipe, size)
    seconds: list[list[float]] = []
    for turn in range(rounds + 1):
        spent = [0.0, 0.0]
        for index, encoded in enumerate(files):
            for way in (0, 1) if index % 2 else (1, 0):
                began = time.process_time()
                draws[way](encoded, turn * len(files) + index)
                spent[way] += time.process_time() - began
        seconds.append(spent)
    seconds = seconds[1:]  # the first round warms up
    ratios = sorted(plain / ours for plain, ours in seconds)
    plain_ms, our_ms = (1000 * statistics.median(column) / len(files) for column in zip(*seconds, strict=True))
    pairs = [pair for i, f in enumerate(files) for pair in zip(*(draw(f, i) for draw in draws), strict=True)]
    difference = statistics.mean((a.float() - b.float()).abs().mean().item() for a, b in pairs)
    ratio = f"{statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]"
    return f"| {recipe} | {size} | {plain_ms:.2f} | {our_ms:.2f} | {ratio} | {difference:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    source = open_source(args.photos, dedicated=True)
    files = [encoded for i in range(len(source)) if isinstance(encoded := source.encoded(i), bytes)]
    print(f"{benchmark_line(1)}; {len(files)} photos, {VIEWS} views each, {args.rounds} rounds\n")
    print("| views | pixels | plain (ms) | ours (ms) | faster, median [all rounds] | difference |")
    print("|---|---:|---:|---:|---:|---:|")
    for recipe, size in CASES:
        print(row_of(recipe, size, files, args.rounds), flush=True)


if __name__ == "__main__":
    main()
