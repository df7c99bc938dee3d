"""results.md from what results.json holds."""

from __future__ import annotations

import math
import statistics
from typing import Any

BATCH = 64
Seconds = list[float]  # a step, round by round


def page(contests: dict[str, Any]) -> str:
    """results.md."""
    lines = ["# Steps of several trainers in turn", "", "Written by `benchmarks/speed/measure.py`."]
    for name, found in contests.items():
        contestants = found["contestants"]
        lines += ["", f"## {name}", "", f"{found['hardware']}; {found['setting']}.", ""]
        built = any("built_views" in one for one in contestants.values())
        lines += break_even_table(contestants) if built else speed_table(contestants)
    return "\n".join(lines) + "\n"


def speed_table(contestants: dict[str, Any]) -> list[str]:
    """Student views a second against the first; more than 1 is faster."""
    lines = ["| | student views a second, times the first | rounds | images/s |", "|---|---:|---:|---:|"]
    base = next(iter(contestants.values()))
    for title, one in contestants.items():
        turns = zip(base["seconds"], one["seconds"], strict=True)
        ratios = [theirs / own * one["views"] / base["views"] for theirs, own in turns]
        images = BATCH / statistics.median(one["seconds"])
        lines.append(f"| {title} | {statistics.median(ratios):.2f} | {spread(ratios)} | {images:.1f} |")
    return lines


def break_even_table(contestants: dict[str, Any]) -> list[str]:
    """What the build of a cache costs, what it saves in an epoch, and after how many epochs both are even."""
    asked, cached, build = (contestants[title] for title in ("teacher asked", "teacher cached", "build"))
    views = build["built_views"]
    even = break_even_epochs(asked["seconds"], cached["seconds"], build["seconds"])
    rows = (
        ("an image in an epoch, teacher asked", asked),
        ("an image in an epoch, teacher cached", cached),
        (f"an image in the build, {views} views", build),
    )
    lines = ["| | median | rounds |", "|---|---:|---:|"]
    for title, one in rows:
        each_ms = [1000 * seconds / BATCH for seconds in one["seconds"]]
        lines.append(f"| {title} | {statistics.median(each_ms):.1f} ms | {spread(each_ms, 1)} |")
    median = epochs_text(statistics.median(even))
    lines.append(
        f"| the cache has paid for itself after | {median} | {epochs_text(min(even))} to {epochs_text(max(even))} |"
    )
    lines.append(f"| by teacher forwards alone | {views / asked['views']:.1f} epochs | |")
    return lines


def break_even_epochs(asked: Seconds, cached: Seconds, build: Seconds) -> list[float]:
    """Of each round: seconds of the build over those that an epoch of as many images saves; infinite where none."""
    turns = zip(asked, cached, build, strict=True)
    return [cost / (plain - replayed) if plain > replayed else math.inf for plain, replayed, cost in turns]


def epochs_text(epochs: float) -> str:
    return "never" if math.isinf(epochs) else f"{epochs:.1f} epochs"


def spread(values: list[float], decimals: int = 2) -> str:
    return f"{min(values):.{decimals}f} to {max(values):.{decimals}f}"
