"""Peak memory of commands, all their processes together, of this build and of an older one.

    git worktree add ../old e08c1a9
    python benchmarks/memory_against.py --old ../old --photos FOLDER --train cifar10_train.parquet \\
      --test cifar10_test.parquet --json benchmarks/memory.json

Each with few and with ten times as many images, to see whether memory grows with them. Pages that processes share
count once; memory is looked at five times a second.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from commands import Command, contest
from evaluate_peers import every

NEW = Path(__file__).resolve().parents[1]


def words_of(folder: Path, photos: str, train: str, test: str) -> dict[str, str]:
    """Commands by what they are called, with their data in the folder."""
    files = sorted(path for path in Path(photos).iterdir() if path.is_file())[:112]
    for copies in (1, 10):
        to = folder / f"photos{copies}"
        to.mkdir()
        for number, file in enumerate(files * copies):
            shutil.copy(file, to / f"{number:05d}{file.suffix}")
        every(train, 100 // copies, folder / f"train{copies}.parquet")
        every(test, 100 // copies, folder / f"test{copies}.parquet")
    found = {}
    for copies in (1, 10):
        data = f"disco_effb0 --data {folder}/train{copies}.parquet --eval-data {folder}/test{copies}.parquet"
        found |= {
            f"embed, {112 * copies} photos at 224 px": f"embed {folder}/photos{copies} --model disco_effb0 --out e.npy"
            " --image-size 224",
            f"evaluate knn, {600 * copies} images at 64 px": f"evaluate knn {data} --image-size 64",
            f"evaluate linear, {600 * copies} images at 64 px": f"evaluate linear {data} --image-size 64",
            f"finetune, {500 * copies} images at 64 px": f"finetune {data} --image-size 64 --epochs 1 --out run",
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, required=True, help="a checkout of the older build")
    parser.add_argument("--photos", required=True, help="a folder of photos")
    parser.add_argument("--train", required=True, help="a parquet of small images")
    parser.add_argument("--test", required=True)
    parser.add_argument("--only", default="", help="commands whose name contains this")
    parser.add_argument("--rounds", type=int, default=1, help="to be added to the record")
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()
    builds = {"old": given.old.resolve(), "new": NEW}
    with tempfile.TemporaryDirectory() as name:
        words = words_of(Path(name), given.photos, given.train, given.test)
        made = {
            f"{title}: {which}": Command(
                [sys.executable, "-m", "disco_zoo", *line.split(), "--workers", "1"], {"PYTHONPATH": str(build)}
            )
            for title, line in words.items()
            for which, build in builds.items()
            if given.only in title
        }
        found = contest(given.json, made, given.rounds, "workers 1", torch.get_num_threads(), warm_up=False)
    print(f"{found['hardware']}\n\n| | old, MiB | new, MiB | new / old |\n|---|---:|---:|---:|")
    runs = found["runs"]
    for title in dict.fromkeys(name.rpartition(": ")[0] for name in runs):
        old, new = (max(run["peak_mib"] for run in runs[f"{title}: {which}"]) for which in ("old", "new"))
        print(f"| {title} | {old:.0f} | {new:.0f} | {new / old:.2f} |")


if __name__ == "__main__":
    main()
