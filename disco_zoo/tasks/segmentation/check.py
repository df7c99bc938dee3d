"""One pass over all masks before training: classes, sizes, and classes that cannot be learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from disco_zoo.data.subsets import held_out_images, held_out_note
from disco_zoo.errors import BadData
from disco_zoo.tasks.listed_look import Listed, looks_of
from disco_zoo.tasks.segmentation.data import IGNORED, MaskedSet, image_sizes


def check_masks(
    train: MaskedSet, test: MaskedSet | None, progress: Callable[[int, int], None] | None = None
) -> tuple[MaskedSet, MaskedSet, list[str]]:
    """Read every mask of both sets.

    Args:
        test: None holds out a fifth of the training images.

    Returns:
        The two sets with the names of their classes, which are numbers where nobody names them; and notes.

    Raises:
        BadData: an image and its mask differ in size, fewer than two classes, a number beyond the named classes, a
            class of the test masks that the training masks do not have, or no image can be held out.
    """
    total = len(train) + (len(test) if test else 0)
    report = progress or (lambda done, total: None)
    seen = _Seen()
    classes = _classes(train, seen, lambda done: report(done, total))
    _require_two(train, classes)
    if test is None:
        notes, learnt, asked, train, test = _split(train, classes)
    else:
        first = len(train)
        notes, learnt = [], set().union(*classes)
        asked = set().union(*_classes(test, seen, lambda done: report(first + done, total)))
    if unseen := sorted(asked - learnt):
        raise BadData(f"the masks of {test.name} have class {unseen[0]}, which those of {train.name} do not.")
    names = train.class_names or test.class_names or tuple(map(str, range(max(learnt) + 1)))
    if max(learnt) >= len(names):
        raise BadData(f"the masks of {train.name} have class {max(learnt)}, but only {len(names)} classes have a name.")
    if test.class_names not in (None, names):
        raise BadData(f"{train.name} and {test.name} name their classes differently.")
    notes += seen.notes()
    unlearnt = [name for label, name in enumerate(names) if label not in learnt]
    notes += [f"classes that no mask of {train.name} holds: {_some(unlearnt)}"] if unlearnt else []
    missing = [name for label, name in enumerate(names) if label not in asked]
    notes += [f"no pixel of {_some(missing)} in {test.name}"] if missing else []
    named = train.class_names or test.class_names
    labels_from = "the numbers in the masks" if named is None else "their list of names"
    looks = looks_of(
        [
            Listed(one.name, [image for image, _ in one.pairs], split, "", len(names), labels_from, {"masks": len(one)})
            for one, split in ((train, "train"), (test, "test"))
        ],
        train.ranges,
    )
    train, test = (
        replace(one, class_names=names, look=looks[split]) for one, split in ((train, "train"), (test, "test"))
    )
    return train, test, notes


@dataclass
class _Seen:
    """What the masks of both sets hold beside classes.

    Attributes:
        palette: number -> its colour, and the first mask that says so.
        ignored: pixels of 255, and `masks` that hold some; `without` others but 0, the `first` of these.
    """

    palette: dict[int, tuple[tuple[int, ...], Path]] = field(default_factory=dict)
    pixels: int = 0
    ignored: int = 0
    masks: int = 0
    without: int = 0
    first: Path | None = None

    def add(self, path: Path, counts: Tensor, colors: Mapping[int, tuple[int, ...]]) -> set[int]:
        """Count a mask; return its classes.

        Raises:
            BadData: its palette gives a number another colour than an earlier mask's.
        """
        for number, color in colors.items():
            known, where = self.palette.setdefault(number, (color, path))
            if known != color:
                raise BadData(
                    f"the palettes of {where} and {path} differ: {number} is the colour {known} there, {color} here, "
                    "so numbers do not mean the same classes. Write all masks with one palette."
                )
        classes = set(counts.nonzero().flatten().tolist())
        self.pixels += int(counts.sum())
        if IGNORED in classes:
            self.ignored, self.masks = self.ignored + int(counts[IGNORED]), self.masks + 1
            if classes <= {0, IGNORED}:
                self.without, self.first = self.without + 1, self.first or path
        return classes - {IGNORED}

    def notes(self) -> list[str]:
        """A line for the terminal and the report."""
        if not self.ignored:
            return []
        notes = [f"255 is ignored: {100 * self.ignored / self.pixels:.3g} % of the pixels, in {self.masks} masks"]
        if self.without:
            hint = "if 255 is an object there, write its class number"
            notes.append(f"masks of 0 and 255 alone: {self.without}, first {self.first}; {hint}")
        return notes


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _classes(masked: MaskedSet, seen: _Seen, report: Callable[[int], None]) -> list[set[int]]:
    """Class numbers of each image, without 255."""
    classes = []
    for index in range(len(masked)):
        counts, colors = _pixels(masked, index)
        classes.append(seen.add(masked.pairs[index][1], counts, colors))
        report(index + 1)
    return classes


def _require_two(train: MaskedSet, classes: list[set[int]]) -> None:
    learnt: set[int] = set().union(*classes)
    if len(learnt) < 2:
        hint = " If 255 is your object, write it as 1." if learnt == {0} else ""
        raise BadData(
            f"the masks of {train.name} have {len(learnt)} class: at least two are needed. 255 is ignored.{hint}"
        )


def _split(train: MaskedSet, classes: list[set[int]]) -> tuple[list[str], set[int], set[int], MaskedSet, MaskedSet]:
    """A note, the classes of the training and of the held-out images, and both sets."""
    chosen = held_out_images(classes)
    if not chosen:
        raise BadData(f"{train.name} has too few images to hold some out. Name those to measure on: --eval-data")
    rest = [number for number in range(len(train)) if number not in chosen]
    return (
        [held_out_note(len(chosen), len(train))],
        set().union(*(classes[number] for number in rest)),
        set().union(*(classes[number] for number in chosen)),
        replace(train, name=f"{train.name} (train)", pairs=tuple(train.pairs[number] for number in rest)),
        replace(train, name=f"{train.name} (held out)", pairs=tuple(train.pairs[number] for number in sorted(chosen))),
    )


def _pixels(masked: MaskedSet, index: int) -> tuple[Tensor, dict[int, tuple[int, ...]]]:
    """Number of pixels of each class (256,), and the palette of those."""
    mask, colors = masked.numbered(index)
    image_path, mask_path = masked.pairs[index]
    height, width = mask.shape
    sizes = image_sizes(image_path)
    if (width, height) not in sizes:
        raise BadData(f"{image_path} has {sizes[0][0]} × {sizes[0][1]} pixels, {mask_path} {width} × {height}.")
    if int(mask.min()) < 0 or int(mask.max()) > IGNORED:
        raise BadData(f"{mask_path} has values outside 0..255.")
    return torch.bincount(mask.flatten(), minlength=IGNORED + 1), colors
