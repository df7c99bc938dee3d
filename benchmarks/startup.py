"""How long `disco-zoo list` takes, and `import disco_zoo` against `import timm`: processes of their own, in turn.

python benchmarks/startup.py --rounds 15
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import time

import torch

from disco_zoo.core.environment import benchmark_line

SCRIPT = shutil.which("disco-zoo") or sys.exit("disco-zoo is not on the path: pip install it")
COMMANDS = {
    "import timm": [sys.executable, "-c", "import timm"],
    "import disco_zoo": [sys.executable, "-c", "import disco_zoo"],
    "disco-zoo --help": [SCRIPT, "--help"],
    "disco-zoo list": [SCRIPT, "list"],
    "disco-zoo plan in1k/disco_effb0.disco_mocov2_r50_in1k": [
        SCRIPT,
        "plan",
        "in1k/disco_effb0.disco_mocov2_r50_in1k",
    ],
}


def seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    turns = []
    for turn in range(given.rounds + 1):
        turns.append({name: seconds(command) for name, command in COMMANDS.items()})
        if turn == 0:
            turns.clear()  # files come from the disk the first time
    print(f"{benchmark_line(torch.get_num_threads())}\n")
    print("| | seconds | times `import timm`, median [rounds] |\n|---|---:|---:|")
    for name in COMMANDS:
        ratios = sorted(taken[name] / taken["import timm"] for taken in turns)
        spread = f"{statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]"
        print(f"| `{name}` | {statistics.median(taken[name] for taken in turns):.2f} | {spread} |")


if __name__ == "__main__":
    main()
