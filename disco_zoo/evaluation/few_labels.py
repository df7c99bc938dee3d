"""Chooses the labelled training images of a semi-supervised evaluation (spec 4.3)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import count
from pathlib import Path, PurePosixPath

import torch

from disco_zoo.core.random_streams import stream_generator
from disco_zoo.data.dataset import ImageSource, require_index, require_labels
from disco_zoo.data.subsets import SubsetSource
from disco_zoo.errors import BadData


def balanced_indices(labels: Sequence[int], number: int, seed: int) -> list[int]:
    """Draw images of all classes in turn, so that the classes' numbers differ by one at most.

    A class with too few images gives all it has. With one seed a smaller choice is part of a larger one.

    Args:
        labels: one of each image.
        number: images wanted, at most all.

    Returns:
        Indices in rising order.

    Raises:
        BadData: fewer images than classes.
    """
    classes = sorted(set(labels))
    if number < len(classes):
        raise BadData(
            f"{number} images are fewer than the {len(classes)} classes. Take more: a larger --fraction or --steps."
        )
    order = torch.tensor(labels).argsort(stable=True)
    members = order.split([size for _, size in sorted(Counter(labels).items())])
    number = min(number, len(labels))
    rounds = next(turn for turn in count(1) if sum(min(len(of_class), turn) for of_class in members) >= number)
    turns = torch.randperm(len(classes), generator=stream_generator("few_labels_turn", seed)).tolist()
    drawn: list[tuple[int, int, int]] = []
    for label, turn, of_class in zip(classes, turns, members, strict=True):
        shuffled = torch.randperm(len(of_class), generator=stream_generator("few_labels", seed, label))
        drawn += [(rank, turn, index) for rank, index in enumerate(of_class[shuffled][:rounds].tolist())]
    return sorted(index for _, _, index in sorted(drawn)[:number])


def few_labels(source: ImageSource, fraction: float, seed: int) -> SubsetSource:
    """A class-balanced `fraction` (0 to 1) of a labelled source.

    Raises:
        BadData: no labels, no index, no such fraction, or fewer images than classes.
    """
    if not 0 < fraction <= 1:
        raise BadData(f"A fraction of {fraction:g} of the labels cannot be. Type e.g. --fraction 0.01")
    require_index(source, "a semi-supervised evaluation")
    labels = require_labels(source, "a semi-supervised evaluation")
    return SubsetSource(source, balanced_indices(labels, round(fraction * len(labels)), seed))


def listed(source: ImageSource, file: Path) -> SubsetSource:
    """The images that a text file names, one a line, such as SimCLR's `1percent.txt`; every line counts (Q17).

    A line is a file name, or the end of a path (`n01440764/x.JPEG`) where file names alone are not unique.

    Raises:
        BadData: the file cannot be read or is empty, a name is unknown, or fits several images.
    """
    require_index(source, "a list of images")
    require_labels(source, "a semi-supervised evaluation")
    wanted = _read_names(file)
    depths = {len(PurePosixPath(name).parts) for name in wanted}
    found: dict[str, list[int]] = defaultdict(list)
    for index in range(len(source)):
        for name in _names(source.path(index), depths):
            if name in wanted:
                found[name].append(index)
    unknown = [name for name in wanted if name not in found]
    if unknown:
        raise BadData(
            f"{len(unknown)} of the {len(wanted)} names in {file} are no training images of {source.name} "
            f"({', '.join(unknown[:3])}). Complete the images, or take those lines out."
        )
    for name, indices in found.items():
        if len(indices) > 1:
            raise BadData(
                f"'{name}' in {file} fits {len(indices)} images of {source.name}. Write the folder, too: "
                f"{'/'.join(PurePosixPath(source.path(indices[0])).parts[-2:])}"
            )
    return SubsetSource(source, sorted(index for indices in found.values() for index in indices))


def _read_names(file: Path) -> dict[str, None]:
    """The lines of a list, each once, in order."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise BadData(f"{file} cannot be read: {reason}. Give a text file with one image name a line.") from error
    names = dict.fromkeys(line.strip() for line in lines if line.strip())
    if not names:
        raise BadData(f"{file} is empty. Give a text file with one image name a line.")
    return names


def _names(path: str, depths: set[int]) -> list[str]:
    """The ends of a path, of each of some depths; sources in one file write `x.jpg in photos.tar`."""
    ends = []
    for whole in {path, path.rpartition(" in ")[0] or path}:
        parts = PurePosixPath(whole.replace("\\", "/")).parts
        ends += ["/".join(parts[-depth:]) for depth in depths]
    return ends
