"""Images a second by 1 to N processes of one core each, and what that would be on more cores.

    python benchmarks/embed_scale.py --photos FOLDER --json benchmarks/embed_scale.json

Each process embeds the same photos, pinned to a core of its own, and decodes in its own thread (`--workers 0`), as
`--shard I/N` runs. Its speed is its own, from the open model to the rows; their sum is in the table.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from embed_speed import plain_colored

from disco_zoo.core.environment import benchmark_line

ROOT = Path(__file__).resolve().parents[1]


def speeds(processes: int, photos: Path, size: int, folder: Path) -> list[float]:
    """Images a second of each of the processes that run at once."""
    running = []
    for core in range(processes):
        words = f"-m disco_zoo embed {photos} --model disco_effb0 --image-size {size} --workers 0 --engine onnxruntime"
        words += f" --json --yes --out {folder}/{core}.npy"
        command = ["taskset", "-c", str(core), sys.executable, *words.split()]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        running.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL))
    return [json.loads(one.communicate()[0])["images_per_s"] for one in running]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", required=True, help="a folder of photos")
    parser.add_argument("--images", type=int, default=112)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found: dict[int, list[float]] = {number: [] for number in given.processes}
    with tempfile.TemporaryDirectory() as name:
        photos = Path(name) / "photos"
        photos.mkdir()
        for file in plain_colored(given.photos, given.images):
            shutil.copy(file, photos)
        speeds(1, photos, given.image_size, Path(name))  # the graph, and the disk's cache
        for _ in range(given.rounds):
            for number in given.processes:
                found[number].append(sum(speeds(number, photos, given.image_size, Path(name))))
    print(f"{benchmark_line(1)}\n\n| processes | images/s |\n|---:|---|")
    for number, values in found.items():
        print(f"| {number} | {', '.join(f'{value:.1f}' for value in values)} |")
    if given.json:
        given.json.write_text(json.dumps({"hardware": benchmark_line(1), "images_per_s": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
