"""Two ways to do one thing, in turn: what disturbs the machine disturbs both; a ratio is the median of the pairs."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import nn

Work = Callable[[], object]


def cells(new: Work, plain: Work, rounds: int, decimals: int = 1) -> str:
    """Milliseconds of CPU time of both, the ratio of new to plain and its range: four cells of a markdown table."""
    turns = []
    for turn in range(rounds + 1):
        each = []
        for work in (new, plain):
            began = time.process_time()
            work()
            each.append(1000 * (time.process_time() - began))
        if turn:  # the first one warms up
            turns.append(each)
    first, second = (statistics.median(column) for column in zip(*turns, strict=True))
    ratios = sorted(a / b for a, b in turns)
    spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
    return f"{first:.{decimals}f} | {second:.{decimals}f} | {statistics.median(ratios):.2f} | {spread}"


def train_step(network: nn.Module, images: torch.Tensor, half: bool = False) -> None:
    """Forward and backward of normalised images (B, 3, S, S), contiguous as views are; in bf16 by autocast."""
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        features = network(images)
    features.float().square().mean().backward()
    network.zero_grad()


def step_settings(doc: str | None, models: Sequence[str]) -> tuple[argparse.Namespace, torch.Tensor]:
    """What a table of steps of networks is asked by: models, rounds, threads; and noise as images (B, 3, S, S)."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=models)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    return args, torch.randn(args.batch_size, 3, args.image_size, args.image_size)
