"""Latency of one image on this CPU: PyTorch, ONNX and int8, timed in interleaved rounds."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from disco_zoo.core.console import StepProgress
from disco_zoo.exporting.onnx_file import write_int8, write_onnx
from disco_zoo.exporting.subject import TOLERANCE, Subject
from disco_zoo.models.onnx_network import runner

WARM_UP_ROUNDS = 3
CALIBRATION_BATCHES = 2  # of noise: the time does not depend on the ranges
MB = 1e6


@dataclass(frozen=True)
class Timing:
    """Milliseconds a picture: the median and the quartiles; and how often faster than PyTorch, by paired rounds."""

    median_ms: float
    low_ms: float
    high_ms: float
    speed_up: float

    def __str__(self) -> str:
        return f"{self.median_ms:.1f} [{self.low_ms:.1f}, {self.high_ms:.1f}]"


@dataclass(frozen=True)
class Row:
    """One network of the table; sizes in bytes."""

    model: str
    num_parameters: int
    image_size: int
    onnx_bytes: int
    int8_bytes: int
    torch: Timing
    onnx: Timing
    int8: Timing

    def as_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "parameters": self.num_parameters,
            "image_size": self.image_size,
            "onnx_bytes": self.onnx_bytes,
            "int8_bytes": self.int8_bytes,
            **{name: vars(getattr(self, name)) for name in ("torch", "onnx", "int8")},
        }


def paired_timings(
    variants: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Timing]:
    """Time each variant once a round, in an order that turns, after some rounds of warm-up.

    Args:
        variants: the first is what the others are compared with, round by round.
        rounds: at least 2.
        clock: seconds.
    """
    names = list(variants)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for round_number in range(WARM_UP_ROUNDS + rounds):
        turn = round_number % len(names)
        for name in names[turn:] + names[:turn]:
            begun = clock()
            variants[name]()
            spent = clock() - begun
            if round_number >= WARM_UP_ROUNDS:
                seconds[name].append(spent)
    return {name: _timing(seconds[name], seconds[names[0]]) for name in names}


def _timing(seconds: Sequence[float], reference: Sequence[float]) -> Timing:
    low, middle, high = statistics.quantiles([1e3 * value for value in seconds], n=4, method="inclusive")
    ratio = statistics.median(theirs / ours for ours, theirs in zip(seconds, reference, strict=True))
    return Timing(middle, low, high, ratio)


def latency_rows(subjects: Iterator[Subject], total: int, rounds: int, threads: int) -> Iterator[Row]:
    """Export, quantise and time each subject.

    Args:
        total: how many there are, for the progress.
        rounds: timings a variant.
        threads: CPU threads of all three.
    """
    former = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with StepProgress("sizes and latencies", total) as progress:
            for done, subject in enumerate(subjects, 1):
                row = _row(subject, rounds, threads)
                progress.advance(done, f"{row.model}: {row.torch} ms, ONNX {row.onnx}, int8 {row.int8}")
                yield row
    finally:
        torch.set_num_threads(former)


def _row(subject: Subject, rounds: int, threads: int) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        full, small = Path(folder) / "full.onnx", Path(folder) / "small.onnx"
        write_onnx(subject, full, TOLERANCE)
        noise = (subject.example(8, seed=2 + number) for number in range(CALIBRATION_BATCHES))
        # Random weights may leave activations without a spread to make histograms of.
        write_int8(subject, full, small, "static", noise, "minmax")
        picture = subject.example(1)
        run_full, run_small = runner(full, threads), runner(small, threads)
        # The layout that evaluation feeds PyTorch, and that it is fastest with.
        torch_picture = picture.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            timings = paired_timings(
                {
                    "torch": lambda: subject.network(torch_picture),
                    "onnx": lambda: run_full(picture),
                    "int8": lambda: run_small(picture),
                },
                rounds,
            )
        parameters = sum(parameter.numel() for parameter in subject.network.parameters())
        return Row(
            subject.named.name,
            parameters,
            subject.image_size,
            full.stat().st_size,
            small.stat().st_size,
            timings["torch"],
            timings["onnx"],
            timings["int8"],
        )


def as_markdown(rows: Sequence[Row], note: str) -> str:
    """The table as text, with the machine it was measured on below."""
    lines = [
        "| model | parameters (M) | float32 (MB) | int8 (MB) | PyTorch (ms) | ONNX (ms) | int8 (ms) | ONNX faster "
        "| int8 faster |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row.model} | {row.num_parameters / 1e6:.1f} | {row.onnx_bytes / MB:.1f} | {row.int8_bytes / MB:.1f} "
        f"| {row.torch} | {row.onnx} | {row.int8} | {row.onnx.speed_up:.1f}× | {row.int8.speed_up:.1f}× |"
        for row in rows
    ]
    return "\n".join([*lines, "", note])
