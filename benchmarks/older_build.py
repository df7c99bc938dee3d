"""Whole commands of this build and of an older one, in turns: time, and peak memory of all their processes together.

    git worktree add ../old e08c1a9
    python benchmarks/older_build.py --old ../old --photos FOLDER --train cifar10_train.parquet \\
      --test cifar10_test.parquet --json benchmarks/older_build.json [--only reproduce]

The record grows: parts that --only chose are measured one after another.

`embed`, `evaluate` and `finetune` with few and with ten times as many images, to see whether memory grows with them.
Pages that processes share count once; memory is looked at five times a second.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import torch
from commands import Command, contest
from evaluate_peers import every

NEW = Path(__file__).resolve().parents[1]
NUM_PHOTOS = 112


def copy_photos(photos: Path, copies: int, to: Path) -> None:
    to.mkdir()
    files = sorted(path for path in photos.iterdir() if path.is_file())[:NUM_PHOTOS]
    for number, file in enumerate(files * copies):
        shutil.copy(file, to / f"{number:05d}{file.suffix}")


def lines(folder: Path, given: argparse.Namespace) -> dict[str, str]:
    """Command lines by what they are called; their data are made when they are asked for."""
    found: dict[str, str] = {}
    for copies in (1, 10):
        data = f"--data {folder}/train{copies}.parquet --eval-data {folder}/test{copies}.parquet --image-size 64"
        photos = f"{folder}/photos{copies} --model disco_effb0 --out e.npy --image-size 224"
        found |= {
            f"embed, {NUM_PHOTOS * copies} photos at 224 px": f"embed {photos} --workers 1",
            f"evaluate knn, {600 * copies} images at 64 px": f"evaluate knn disco_effb0 {data} --workers 1",
            f"evaluate linear, {600 * copies} images at 64 px": f"evaluate linear disco_effb0 {data} --workers 1",
            f"finetune, {500 * copies} images at 64 px": f"finetune disco_effb0 {data} --epochs 1 --out run",
        }
    data = f"--data {folder}/train4.parquet --eval-data {folder}/test4.parquet"
    found["reproduce, 2000 + 400 images at 64 px"] = f"reproduce disco_effb0.disco_lite0_fmnist {data} --out run"
    return {title: line for title, line in found.items() if given.only in title}


def make_data(folder: Path, given: argparse.Namespace, wanted: str) -> None:
    for copies in (1, 4, 10):
        if f"train{copies}." in wanted:
            every(given.train, 100 // copies, folder / f"train{copies}.parquet")
            every(given.test, 100 // copies, folder / f"test{copies}.parquet")
        if f"photos{copies} " in wanted:
            copy_photos(given.photos, copies, folder / f"photos{copies}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, required=True, help="a checkout of the older build")
    parser.add_argument("--photos", type=Path, required=True, help="a folder of photos")
    parser.add_argument("--train", required=True, help="a parquet of 50,000 small images")
    parser.add_argument("--test", required=True, help="of 10,000")
    parser.add_argument("--only", default="", help="commands whose name contains this")
    parser.add_argument("--rounds", type=int, default=1, help="to be added to the record")
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()
    builds = {"old": given.old.resolve(), "new": NEW}
    with tempfile.TemporaryDirectory() as name:
        chosen = lines(Path(name), given)
        make_data(Path(name), given, " ".join(chosen.values()))
        made = {
            f"{title}: {which}": Command(
                [sys.executable, "-m", "disco_zoo", *line.split()], {"PYTHONPATH": str(build), "DISCO_ZOO_CACHE": name}
            )
            for title, line in chosen.items()
            for which, build in builds.items()
        }
        found = contest(given.json, made, given.rounds, "in turns", torch.get_num_threads(), warm_up=False)
    print(f"{found['hardware']}\n\n| | old, MiB | new, MiB | memory, new / old | time, new / old | rounds |")
    print("|---|---:|---:|---:|---:|---:|")
    runs = found["runs"]
    for title in dict.fromkeys(name.rpartition(": ")[0] for name in runs):
        old, new = (runs[f"{title}: {which}"] for which in ("old", "new"))
        peaks = [max(run["peak_mib"] for run in side) for side in (old, new)]
        times = [mine["seconds"] / before["seconds"] for before, mine in zip(old, new, strict=True)]
        cells = [f"{peak:.0f}" for peak in peaks] + [f"{peaks[1] / peaks[0]:.2f}", f"{statistics.median(times):.2f}"]
        print(f"| {title} | {' | '.join(cells)} | {len(times)} |")


if __name__ == "__main__":
    main()
