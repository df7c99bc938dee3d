"""Seconds until a command's first line, of this build and of an older one, in turn, each in a process of its own.

    git worktree add ../old e08c1a9
    python benchmarks/first_line.py --old ../old --json benchmarks/first_line.json

The refusals need no torch. The others load a model. The older build's first line is the progress of the work itself,
the newer one's says what data it found; so a look at 512 images is measured to its end, too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from disco_zoo.core.environment import benchmark_line

COMMANDS = {
    "finetune into a run": "finetune disco_effb0 --data sample --out run",
    "evaluate of missing data": "evaluate knn disco_effb0 --data nowhere",
    "evaluate knn, its first line": "evaluate knn disco_effb0 --data sample --image-size 32 --workers 0",
    "evaluate knn, a look, whole": "evaluate knn disco_effb0 --data sample --image-size 32 --workers 0 --steps 1",
}


def first_line_seconds(build: Path, words: list[str], folder: Path, whole: bool) -> float:
    """From the start of the process to the first byte on either stream, with which it is ended, or to its own end."""
    environment = os.environ | {"PYTHONPATH": str(build)}
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "disco_zoo", *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        bufsize=0,
    ) as process:
        assert process.stdout is not None
        process.stdout.read(-1 if whole else 1)
        spent = time.perf_counter() - began
        process.kill()
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, required=True, help="a checkout of the older build")
    parser.add_argument("--only", nargs="+", choices=list(COMMANDS), default=list(COMMANDS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    new = Path(__file__).resolve().parents[1]
    found: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "run").mkdir()
        for file in ("recipe.yaml", "checkpoint.pt", "run.json"):
            (folder / "run" / file).touch()
        for turn in range(given.rounds + 1):  # the first fills the disk's cache
            for title, command in ((title, COMMANDS[title]) for title in given.only):
                taken = found.setdefault(title, {"old": [], "new": []})
                for which in ("old", "new") if turn % 2 else ("new", "old"):
                    build = given.old.resolve() if which == "old" else new
                    spent = first_line_seconds(build, command.split(), folder, title.endswith("whole"))
                    taken[which] += [spent] if turn else []
    print(f"{benchmark_line(1)}; {given.rounds} rounds\n")
    print("| | time, times the older build's | rounds |")
    print("|---|---:|---:|")
    for title, taken in found.items():
        ratios = [ours / theirs for ours, theirs in zip(taken["new"], taken["old"], strict=True)]
        print(f"| {title} | {statistics.median(ratios):.2f} | {min(ratios):.2f} to {max(ratios):.2f} |")
    if given.json:
        given.json.write_text(json.dumps({"hardware": benchmark_line(1), "seconds": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
