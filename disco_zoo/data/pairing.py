"""Training and test images that belong together: the one place that decides which test images go with which data."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from disco_zoo.core.console import say_once
from disco_zoo.data.dataset import ImageSource
from disco_zoo.data.open_source import open_source
from disco_zoo.data.subsets import RelabeledSource, labeled_part
from disco_zoo.data.summary import tell
from disco_zoo.errors import BadData, NoTestImages

SHOWN = 5


def open_labeled_pair(data: str, eval_data: str | None = None) -> tuple[ImageSource, ImageSource]:
    """Open training images and the test images to measure on; of both those that have a label.

    Args:
        data: any source; its own test split is taken where `eval_data` is not given.

    Raises:
        BadData: one of the two cannot be had.
    """
    train = open_source(data, "train")
    test = open_source(eval_data, "test", dedicated=True) if eval_data else open_source(data, "test")
    return _labeled(train, test)


def open_own_pair(data: str) -> tuple[ImageSource, ImageSource] | None:
    """Open the labelled training and test images of one source; None where it does not have both.

    Raises:
        BadData: `data` cannot be read.
    """
    train = open_source(data, "train")
    try:
        test = open_source(data, "test")
    except NoTestImages:
        return None
    named_alone = bool(train.places()) and train.places() == test.places()  # a test file without its training file
    if named_alone or train.labels is None or test.labels is None:
        return None
    return _labeled(train, test)


def open_test_beside(train: ImageSource, eval_data: str | None = None) -> ImageSource | None:
    """Open the test images that go with training images; None where there are none and none are named.

    Raises:
        BadData: `eval_data` cannot be had.
    """
    try:
        test = open_source(eval_data or train.name, "test", dedicated=eval_data is not None)
    except NoTestImages:
        if eval_data is not None:
            raise
        return None
    test = matched(train, test)
    tell(test)
    return labeled_part(test)


def matched(train: ImageSource, test: ImageSource) -> ImageSource:
    """The test images with labels that mean what those of the training images mean, where names or folders tell.

    Raises:
        BadData: they are among the training images, or the other way round.
    """
    _refuse_overlap(train, test)
    train.share_depth(test)
    numbers = _numbers(train, test)
    if numbers is None or train.class_names is None:
        return test
    labels = np.zeros(len(test), np.int64) if test.labels is None else np.asarray(test.labels, np.int64)
    table = np.asarray([*numbers, -1], dtype=np.int64)  # -1, no label, stays
    return RelabeledSource(test, table[labels], train.class_names)


def _labeled(train: ImageSource, test: ImageSource) -> tuple[ImageSource, ImageSource]:
    """Both, matched and told of, without the images that have no label."""
    test = matched(train, test)
    tell(train)
    tell(test)
    return labeled_part(train), labeled_part(test)


def refuse_test_among_extra(extra: ImageSource, test: ImageSource) -> None:
    """Refuse extra images to train on that are the test images, or hold them.

    Raises:
        BadData: they do.
    """
    if set(extra.places()) & set(test.places()):
        raise BadData(f"data.extra_source: {extra.name} are the test images and would be trained on. Give others.")
    _refuse_overlap(extra, test)


def say_missing_classes(train: ImageSource, test: ImageSource) -> None:
    """A line that names the classes of the training images of which there is no test image; they are not measured."""
    if train.labels is None or test.labels is None:
        return
    trained = {label for label in set(train.labels) if label >= 0}
    if missing := sorted(trained - set(test.labels)):
        names = [train.class_names[label] if train.class_names else str(label) for label in missing]
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        say_once(
            f"{test.name}: no test images of {len(missing)} of the {len(trained)} classes, which are not measured: "
            f"{', '.join(names[:SHOWN])}{more}"
        )


def _numbers(train: ImageSource, test: ImageSource) -> list[int] | None:
    """The training images' number of each label of the test images; None where the labels stay as they are."""
    if train.class_names is None or test.class_names == train.class_names:
        return None
    if test.class_folders and test.class_folders.keys() <= train.class_folders.keys():
        by_label = {label: train.class_folders[folder] for folder, label in test.class_folders.items()}
        return [by_label[label] for label in range(len(by_label))]
    known = {name: label for label, name in enumerate(train.class_names)}
    if test.class_names is not None and known.keys() >= set(test.class_names):
        return [known[name] for name in test.class_names]
    return None


def _refuse_overlap(train: ImageSource, test: ImageSource) -> None:
    trained, asked = set(train.places()), set(test.places())
    if trained and trained == asked:
        say_once(
            f"{test.name}: the test images are the training images themselves; figures say nothing of other images. "
            "Give others with --eval-data"
        )
        return
    for one in asked:
        for other in trained:
            if _is_within(one, other):
                raise BadData(
                    f"{test.name}: the test images in {one} lie among the training images in {other} and would be "
                    "trained on. Put the two side by side."
                )
            if _is_within(other, one):
                raise BadData(f"the training images in {other} lie among the test images in {one}. Give others.")


def _is_within(inner: Path, outer: Path) -> bool:
    return inner == outer or outer in inner.parents
