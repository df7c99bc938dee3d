"""Embedding photos: a plain loop against what `disco-zoo embed` runs, by each engine, in turns, in one process.

    python benchmarks/embed_speed.py --photos FOLDER --json benchmarks/embed_speed.json
    python benchmarks/embed_speed.py --photos FOLDER --enlarge 4000 3000 --workers 2 --json FILE

The plain loop is what people write: timm's model and transform, a DataLoader, inference mode; its images are decoded
and resized as ours are, so the features agree (the smallest cosine is in the table). Each round gives every contestant
the same photos, in an order that turns; a ratio is that of one round. All count from the open model to the rows. What
an engine costs besides stands apart: "first" are the seconds of its graph and its checks, once for each model and size,
and "open" those of every later command, both under whatever else the machine does. The last rows are limits: the loop's
time over that of our decoding alone, in one process, of the forward alone, and of both spread evenly over all threads.

Photos whose color profile changes their colors are left out: ours converts them to sRGB, the plain loop does not.
`--enlarge` makes photos of a camera's size of them (bicubic, JPEG quality 90).
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from disco_zoo.core.console import console
from disco_zoo.core.environment import benchmark_line
from disco_zoo.data.image_list import open_images
from disco_zoo.data.pixels.color_profile import changes_colors
from disco_zoo.data.source_image import SourceImage
from disco_zoo.embedding.batches import embedded_batches
from disco_zoo.embedding.facts import facts_of
from disco_zoo.models.encoder import frozen
from disco_zoo.models.engine import forward_by, installed_engines
from disco_zoo.models.forward import Forward
from disco_zoo.models.load import NamedModel, load_model
from disco_zoo.transforms.eval import embed_transform, normalize


class Photos(Dataset[torch.Tensor]):
    def __init__(self, files: list[Path], transform: Callable) -> None:
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(Image.open(self.files[index]).convert("RGB"))


def plain_loop(named: NamedModel, size: int, resize: int, batch: int, workers: int) -> Callable:
    transform = timm.data.create_transform(
        (3, size, size), interpolation="bilinear", mean=named.mean, std=named.std, crop_pct=size / resize
    )

    def run(files: list[Path]) -> np.ndarray:
        rows = []
        with torch.inference_mode():
            for images in DataLoader(Photos(files, transform), batch_size=batch, num_workers=workers):
                rows.append(named.backbone(images))
        return torch.cat(rows).numpy()

    return run


def ours(named: NamedModel, forward: Forward, size: int, resize: int, batch: int, workers: int) -> Callable:
    def run(files: list[Path]) -> np.ndarray:
        source = open_images([str(file) for file in files])
        facts = facts_of(
            named,
            source,
            data=None,
            split=None,
            normalised=False,
            half=False,
            image_size=size,
            resize_size=resize,
        )
        batches = [range(first, min(first + batch, len(files))) for first in range(0, len(files), batch)]
        found = embedded_batches(named, source, facts, batches, workers=workers, forward=forward)
        return torch.cat([one.rows for one in found]).numpy()

    return run


def plain_colored(folder: str, number: int) -> list[Path]:
    source = open_images([folder])
    files = (Path(source.path(index)) for index in range(len(source)))
    return list(itertools.islice((file for file in files if not changes_colors(Image.open(file))), number))


def enlarged(files: list[Path], size: tuple[int, int], folder: Path) -> list[Path]:
    made = []
    for number, file in enumerate(files):
        image = Image.open(file).convert("RGB")
        size_here = size if image.width >= image.height else size[::-1]
        made.append(folder / f"{number:04d}.jpg")
        image.resize(size_here, Image.Resampling.BICUBIC).save(made[-1], quality=90)
    return made


def limits(named: NamedModel, forward: Forward, files: list[Path], size: int, resize: int) -> dict[str, float]:
    """Seconds for all photos: decoding alone by one process, and the forward alone by all threads."""
    transform = embed_transform(size, resize, full_decode=False)
    began = time.perf_counter()
    views = torch.stack([transform(SourceImage(file.read_bytes())) for file in files])
    decoded = time.perf_counter()
    images = normalize(views, named.mean, named.std, layout=forward.layout)
    with frozen(named.backbone, "cpu"):
        forward(images[:1])
        computing = time.perf_counter()
        forward(images)
    spent = {"decoding alone, one process": decoded - began, "forward alone": time.perf_counter() - computing}
    return spent | {"both, spread evenly": spent["forward alone"] + (decoded - began) / torch.get_num_threads()}


def smallest_cosine(found: np.ndarray, expected: np.ndarray) -> float:
    products = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    return float(products.min())


def contest(
    contestants: dict[str, Callable], files: list[Path], rounds: int
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of each contestant in each round, and the smallest cosine of its features to the first one's."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    names, cosines, expected = list(contestants), {}, None
    for turn in range(rounds + 1):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            began = time.perf_counter()
            rows = contestants[name](files)
            spent = time.perf_counter() - began
            if turn == 0:  # files come from the disk the first time
                expected = rows if expected is None else expected
                cosines[name] = smallest_cosine(rows, expected)
            else:
                seconds[name].append(spent)
    return seconds, cosines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", required=True, help="a folder of photos")
    parser.add_argument("--model", default="disco_effb0")
    parser.add_argument("--images", type=int, default=32, help="of the folder, in each round")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--engines", nargs="*", help="[default: torch and all that are installed]")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", type=Path, help="where the seconds of all rounds go")
    parser.add_argument("--enlarge", type=int, nargs=2, metavar=("WIDTH", "HEIGHT"), help="photos of this size")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    console.quiet = True
    with tempfile.TemporaryDirectory() as folder:
        files = plain_colored(given.photos, given.images)
        compare(given, files if given.enlarge is None else enlarged(files, tuple(given.enlarge), Path(folder)))


def compare(given: argparse.Namespace, files: list[Path]) -> None:
    named = load_model(given.model)
    named.backbone.eval()
    size, resize = given.image_size, round(given.image_size * 256 / 224)
    contestants = {"plain loop": plain_loop(named, size, resize, given.batch_size, given.workers)}
    costs: dict[str, dict[str, float]] = {}
    for engine in given.engines or ["torch", *installed_engines()]:
        costs[engine] = {}
        for name in ("first", "open"):
            began = time.perf_counter()
            forward = forward_by(named.backbone, size, engine=engine)
            costs[engine][name] = time.perf_counter() - began
        contestants[engine] = ours(named, forward, size, resize, given.batch_size, given.workers)
    seconds, cosines = contest(contestants, files, given.rounds)
    found = limits(named, forward, files, size, resize)
    sides = "" if given.enlarge is None else f" of {given.enlarge[0]} x {given.enlarge[1]}"
    setting = f"{len(files)} photos{sides}, {size} px, batch {given.batch_size}"
    setting += f", workers {given.workers}, {given.rounds} rounds"
    print(f"{benchmark_line(given.threads)}; {given.model}, {setting}\n")
    print("| | images/s, times the plain loop | rounds | smallest cosine | first (s) | open (s) |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, taken in seconds.items():
        ratios = [plain / own for plain, own in zip(seconds["plain loop"], taken, strict=True)]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        once = [f"{costs[name][part]:.1f}" if name in costs else "" for part in ("first", "open")]
        print(f"| {name} | {statistics.median(ratios):.2f} | {spread} | {cosines[name]:.6f} | {once[0]} | {once[1]} |")
    for name, taken in found.items():
        print(f"| {name} ({engine}) | {statistics.median(seconds['plain loop']) / taken:.2f} | | | | |")
    if given.json:
        facts = {"hardware": benchmark_line(given.threads), "setting": setting, "model": given.model}
        facts |= {"seconds": seconds, "cosines": cosines, "costs_s": costs, "limits_s": found}
        given.json.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
