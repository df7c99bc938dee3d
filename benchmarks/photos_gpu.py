"""The photo recipe at 224 px in bf16, with the teacher asked each step and with its cache, within ten minutes on a GPU.

    python benchmarks/photos_gpu.py --data tiny_train.parquet [--steps 200] [--device cuda] [--set KEY=VALUE ...]

Trains both runs for the same steps, one after the other; prints images/s, the peak of memory beside the one that `plan`
predicts, and the kNN after the cached run. On a GPU absolute figures are quoted, with its name.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

RECIPE = "photos/disco_effb0.feature_lite2_photos"
LARGE = (
    "student.image_size=224",
    "views.size=null",
    "teacher.image_size=224",
    "optim.batch_size=256",
    "optim.precision=bf16",
    "data.max_images=20000",
    "eval.image_size=224",
    "eval.resize_size=256",
    "log.knn_every_epochs=0",
)
RUNS = {"teacher asked": "teacher.cache_views=null", "teacher cached": "teacher.cache_views=1"}


def disco_zoo(*arguments: object) -> str:
    """Run one command and return what it prints.

    Raises:
        SystemExit: it failed; its own message has been shown.
    """
    typed = [sys.executable, "-m", "disco_zoo", *map(str, arguments)]
    result = subprocess.run(typed, stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"failed: {' '.join(typed[2:])}")
    return result.stdout


def one_run(title: str, given: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Train for a few steps, with what `plan` predicts beside it."""
    changes = [part for change in (*LARGE, RUNS[title], *given.set) for part in ("--set", change)]
    predicted = json.loads(disco_zoo("plan", RECIPE, "--data", given.data, "--json", *changes))["memory"]
    disco_zoo(
        "train", RECIPE, "--data", given.data, "--device", given.device, "--steps", given.steps, "--out", out, *changes
    )
    return {**json.loads((out / "run.json").read_text()), "predicted": predicted}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="tiny_train.parquet")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--set", action="append", default=[], help="more changes of the recipe")
    given = parser.parse_args()
    bytes_kind = "resident_bytes" if given.device == "cpu" else "tensors_bytes"
    print("| | images/s | waiting for data | peak MiB | plan MiB |\n|---|---:|---:|---:|---:|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for title in RUNS:
            out = Path(folder) / title.replace(" ", "_")
            facts = one_run(title, given, out)
            predicted = facts["predicted"][bytes_kind] / 2**20
            print(
                f"| {title} | {facts['images_per_s']:.0f} | {facts['data_wait_share']:.0%} | "
                f"{facts['peak_memory_mib']:.0f} | {predicted:.0f} |",
                flush=True,
            )
        hardware = facts["hardware"]
        device = ", ".join(hardware["accelerators"]) or f"{hardware['cpu_cores']} CPU cores ({hardware['cpu']})"
        knn = disco_zoo("evaluate", "knn", out, "--data", given.data, "--device", given.device)
    print(f"\n{given.steps} steps on {device}. kNN after the cached run:\n\n{knn}")


if __name__ == "__main__":
    main()
