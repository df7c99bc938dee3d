"""Training and test images that belong together: the one place that decides which test images go with which data."""

from __future__ import annotations

from disco_zoo.data.dataset import ImageSource
from disco_zoo.data.open_source import open_source
from disco_zoo.errors import NoTestImages


def open_labeled_pair(data: str, eval_data: str | None = None) -> tuple[ImageSource, ImageSource]:
    """Open training images and the test images to measure on.

    Args:
        data: any source; its own test split is taken where `eval_data` is not given.

    Raises:
        BadData: one of the two cannot be had.
    """
    train = open_source(data, "train")
    return train, open_source(eval_data, "test", dedicated=True) if eval_data else open_source(data, "test")


def open_own_pair(data: str) -> tuple[ImageSource, ImageSource] | None:
    """Open the labelled training and test images of one source; None where it does not have both.

    Raises:
        BadData: `data` cannot be read.
    """
    try:
        train, test = open_labeled_pair(data)
    except NoTestImages:
        return None
    if train.labels is None or test.labels is None or train.fingerprint() == test.fingerprint():
        return None
    return train, test


def open_test_beside(data: str, eval_data: str | None = None) -> ImageSource | None:
    """Open the test images that go with training images; None where there are none and none are named.

    Raises:
        BadData: `eval_data` cannot be had.
    """
    if eval_data is not None:
        return open_source(eval_data, "test", dedicated=True)
    try:
        return open_source(data, "test")
    except NoTestImages:
        return None
