"""Splits labelled images into training and held-out ones, per class, by the seed, equally on every machine."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from disco_zoo.core.random_streams import stream_generator
from disco_zoo.data.dataset import ImageSource
from disco_zoo.data.subsets import SubsetSource


def few_per_class(source: ImageSource, number: int, seed: int) -> SubsetSource:
    """`number` images of each class. Of one seed, fewer are among the more: 10 a class are part of 100 a class."""
    chosen = [index for rows in _shuffled_classes(_labels(source), seed, "few") for index in rows[:number]]
    return SubsetSource(source, sorted(chosen))


def hold_out(source: ImageSource, fraction: float, seed: int) -> tuple[SubsetSource, SubsetSource | None]:
    """Split a source into (training, validation) images with the same mixture of classes.

    Of a class with n images round(fraction · n) are held out, but one at least and never its last one. A class of one
    image is for training alone.

    Returns:
        The validation part is None for a fraction of 0, or where no class has two images.
    """
    held: list[int] = []
    if fraction > 0:
        for rows in _shuffled_classes(_labels(source), seed, "hold_out"):
            held += rows[: min(len(rows) - 1, max(1, round(fraction * len(rows))))]
    out = set(held)
    train = SubsetSource(source, [index for index in range(len(source)) if index not in out])
    return train, SubsetSource(source, sorted(held)) if held else None


def _shuffled_classes(labels: Sequence[int], seed: int, purpose: str) -> list[list[int]]:
    """The indices of each class, each class in an order of its own."""
    table = torch.tensor(labels)
    classes = []
    for label in sorted(set(labels)):
        rows = torch.nonzero(table == label).flatten()
        order = torch.randperm(len(rows), generator=stream_generator(purpose, seed, label))
        classes.append(rows[order].tolist())
    return classes


def _labels(source: ImageSource) -> Sequence[int]:
    assert source.labels is not None  # `class_names_of` has been called
    return source.labels
