"""Whole commands in turns, each a process of its own: seconds and memory of all its processes, in a record that grows.

Each call adds rounds to the record, so that a long contest is measured in short pieces. In each round every command
runs once, in an order that turns; a ratio is that of one round, its median that over all rounds.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from disco_zoo.core.environment import benchmark_line

LOOK_EVERY_SECONDS = 0.2  # at the memory


@dataclass(frozen=True)
class Command:
    """What is run, in a folder of its own.

    Attributes:
        words: of the command line.
        environment: variables besides this process's own.
        read: makes of the folder, when the command has ended, what the record keeps beside seconds and memory.
    """

    words: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    read: Callable[[Path], dict[str, Any]] = field(default=lambda folder: {})


def measured(command: Command) -> dict[str, Any]:
    """Run it once: seconds, peak memory in MiB, and what it left."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.perf_counter()
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                command.words, cwd=folder, env={**os.environ, **command.environment}, stdout=log, stderr=log
            )
            peak = 0.0
            while process.poll() is None:
                peak = max(peak, memory_mib(process.pid))
                try:
                    process.wait(LOOK_EVERY_SECONDS)
                except subprocess.TimeoutExpired:
                    continue
        seconds = time.perf_counter() - began
        if process.returncode:
            raise SystemExit(f"{' '.join(command.words)}\n{(folder / 'log').read_text(errors='replace')[-3000:]}")
        return {"seconds": round(seconds, 3), "peak_mib": round(peak, 1), **command.read(folder)}


def memory_mib(pid: int) -> float:
    """Of a process and all below it; pages that several of them share count once."""
    kib, waiting = 0, [pid]
    while waiting:
        process = Path(f"/proc/{waiting.pop()}")
        try:
            shares = [line.split() for line in (process / "smaps_rollup").read_text().splitlines()]
            waiting += [int(child) for task in (process / "task").iterdir() for child in _children(task)]
        except OSError:  # it has ended
            continue
        kib += sum(int(words[1]) for words in shares if words[0] == "Pss:")
    return kib / 1024


def _children(task: Path) -> list[str]:
    return (task / "children").read_text().split()


def contest(
    record: Path, commands: Mapping[str, Command], rounds: int, setting: str, threads: int, *, warm_up: bool = True
) -> dict[str, Any]:
    """Add rounds to the record and return it; a first run of each, which fills the disk's cache, is not in it.

    Commands that the record has not seen are added to it.
    """
    found: dict[str, Any] = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    if found.get("setting", setting) != setting:
        raise SystemExit(f"{record} is of another setting: {found['setting']}. Give another --json")
    runs: dict[str, list[dict[str, Any]]] = found.setdefault("runs", {})
    names = list(commands)
    for name in names:
        runs.setdefault(name, [])
    if warm_up and not found.get("setting"):
        for name in names:
            measured(commands[name])
    found |= {"hardware": benchmark_line(threads), "setting": setting}
    for turn in range(len(runs[names[0]]), len(runs[names[0]]) + rounds):
        taken = {name: measured(commands[name]) for name in names[turn % len(names) :] + names[: turn % len(names)]}
        for name in names:
            runs[name].append(taken[name])
        record.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


def ratios(found: Mapping[str, Any], name: str, ours: str, key: str = "seconds") -> tuple[float, float, float]:
    """Median, smallest and largest over the rounds of a command's seconds (or memory) to ours."""
    pairs = zip(found["runs"][name], found["runs"][ours], strict=True)
    each = sorted(theirs[key] / own[key] for theirs, own in pairs)
    return statistics.median(each), each[0], each[-1]


def table(found: Mapping[str, Any], ours: str) -> str:
    """Markdown: of each command its seconds, as many times ours, and its memory."""
    lines = [f"{found['hardware']}; {found['setting']}; {len(found['runs'][ours])} rounds", ""]
    lines += ["| | s | times ours | rounds | peak MiB |", "|---|---:|---:|---:|---:|"]
    for name, taken in found["runs"].items():
        seconds, peak = (statistics.median(run[key] for run in taken) for key in ("seconds", "peak_mib"))
        middle, least, most = ratios(found, name, ours)
        lines.append(f"| {name} | {seconds:.1f} | {middle:.2f} | {least:.2f} to {most:.2f} | {peak:.0f} |")
    return "\n".join(lines)
