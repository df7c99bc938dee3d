"""Chooses the images to measure on where none are given: a fifth of all, leaving each class a training image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch

from disco_zoo.core.random_streams import stream_generator

SHARE = 0.2


def held_out_images(classes: Sequence[set[int]]) -> set[int]:
    """Numbers of the images to hold out: the same ones for every seed of a training.

    Args:
        classes: of each image, those that must be left to learn.

    Returns:
        A fifth of the images, fewer where classes are rare; empty where none can be spared.
    """
    order = torch.randperm(len(classes), generator=stream_generator("task_held_out", 0)).tolist()
    wanted = max(1, round(SHARE * len(classes)))
    chosen: set[int] = set()
    left = Counter(label for labels in classes for label in labels)
    for number in order:
        if len(chosen) < wanted and all(left[label] > 1 for label in classes[number]):
            chosen.add(number)
            left.subtract(classes[number])
    return chosen


def held_out_note(test: int, total: int) -> str:
    """How many images are held out, as one line."""
    return f"no test split: {test} of {total} images, the same for every seed, are held out to measure on"
