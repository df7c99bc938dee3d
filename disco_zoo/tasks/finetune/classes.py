"""The classes of a data set, checks that they suffice, and splits per class, by the seed, equal on every machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from disco_zoo.core.random_streams import stream_generator
from disco_zoo.data.dataset import ImageSource, require_index, require_labels, require_same_classes
from disco_zoo.data.pairing import say_missing_classes
from disco_zoo.data.subsets import SubsetSource
from disco_zoo.errors import BadData, DiscoZooError, counted

SHOWN = 5


def class_names_of(train: ImageSource, test: ImageSource | None) -> tuple[str, ...]:
    """The names of the classes in the order of their labels; numbers where the source has no names.

    Raises:
        BadData: no labels, unlabelled images among others, one class, or a class that one of the two sources lacks.
    """
    for source in (train, test):
        if source is not None:
            require_index(source, "fine-tuning")
    labels = require_labels(train, "fine-tuning")
    names = tuple(train.class_names or map(str, range(max(labels) + 1)))
    _refuse_missing(names, set(labels), train, "training")
    if len(names) < 2:
        raise BadData(f"{train.name} has one class ({names[0]}). A classifier needs two; give images of another one.")
    if test is not None:
        require_same_classes(train, test)
        found = set(require_labels(test, "measuring"))
        if max(found) >= len(names):
            raise BadData(f"Test images of class {max(found)} have no training images. Give some, or drop them.")
        say_missing_classes(train, test)
    return names


def require_same_labels(model: str, known: Sequence[str], names: Sequence[str]) -> None:
    """Refuse to go on with a classifier on images of other classes.

    Raises:
        DiscoZooError: the class names differ.
    """
    if list(known) == list(names):
        return
    odd = [name for name in names if name not in known] + [name for name in known if name not in names]
    shown = ", ".join(odd[:SHOWN]) or "their order"
    raise DiscoZooError(
        f"{model} knows {counted(len(known), 'class')} and the data have {len(names)}; they differ in: {shown}. "
        "For a new head on its backbone add --new-head"
    )


def require_enough(labels: Sequence[int], names: Sequence[str], wanted: int, name: str) -> None:
    """Refuse `wanted` training images of each class where a class has fewer.

    Raises:
        BadData: which class, and how many it has.
    """
    counts = Counter(labels)
    least = min(range(len(names)), key=lambda label: counts[label])
    if counts[least] < wanted:
        raise BadData(
            f"{name} has {counts[least]} training images of class {names[least]}, fewer than {wanted}. "
            f"Type: --few {counts[least]}"
        )


def balanced_weights(labels: Sequence[int], num_classes: int) -> Tensor:
    """Weights float32 (K,) N / (K·n_c), whose mean over the N images is 1: each class weighs the same in all."""
    counts = torch.bincount(torch.tensor(labels), minlength=num_classes)
    return len(labels) / (num_classes * counts.float())


def _refuse_missing(names: Sequence[str], found: set[int], source: ImageSource, kind: str) -> None:
    missing = [name for label, name in enumerate(names) if label not in found]
    if missing:
        raise BadData(
            f"{source.name}: classes without {kind} images: {', '.join(missing[:SHOWN])}. Give images of each class."
        )


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
