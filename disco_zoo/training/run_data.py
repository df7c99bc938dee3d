"""Opens the images of a run: for training and for evaluation."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from disco_zoo.config.recipe import Recipe
from disco_zoo.core.console import console
from disco_zoo.data.dataset import ImageSource
from disco_zoo.data.joined import with_extra
from disco_zoo.data.open_source import open_source
from disco_zoo.data.pairing import matched, open_own_pair, open_test_beside
from disco_zoo.data.subsets import labeled_part, random_subset
from disco_zoo.data.summary import tell
from disco_zoo.errors import BadData
from disco_zoo.training.stream_training import prepare_stream


@dataclass(frozen=True)
class Data:
    """The sources of a run.

    Attributes:
        train: images to train on.
        test: None when there is nothing labelled to evaluate on.
        extra: `train` and the recipe's extra images together; None without any.
        labeled: the training split of the data that `test` comes from, where `train` has no labels; None otherwise.
    """

    train: ImageSource
    test: ImageSource | None
    extra: ImageSource | None = None
    labeled: ImageSource | None = None

    @property
    def trained_on(self) -> ImageSource:
        """All images to train on."""
        return self.extra or self.train

    @functools.cached_property
    def bank(self) -> ImageSource:
        """Where kNN looks for neighbors and what a linear probe trains on: images that have a label."""
        return self.labeled or labeled_part(self.train)

    @property
    def has_labels(self) -> bool:
        return self.bank.labels is not None and self.test is not None and self.test.labels is not None

    def require_test(self) -> ImageSource:
        """The test images.

        Raises:
            BadData: there are none; how to give some.
        """
        # Asking again for the missing split raises the words that say it.
        return self.test or open_source(self.train.name, "test")


def open_data(recipe: Recipe, data: str | None = None, eval_data: str | None = None) -> Data:
    """Open the training images, and the test images where there are any.

    Raises:
        BadData: no source is named, or it cannot be read.
    """
    train = _open_train(recipe, data)
    joined = with_extra(train, recipe.data.extra_source, recipe.data.extra_repeats)
    tell(train)
    eval_data = eval_data or recipe.data.eval_source
    pair = open_own_pair(eval_data) if eval_data and train.labels is None else None
    labeled, test = pair or (None, open_test_beside(train, eval_data))
    if labeled is not None and test is not None:
        test = matched(train, test)
        console.print(
            f"{train.name} has no labels: measured on {eval_data}, with its {len(labeled)} training images as bank",
            soft_wrap=True,
            markup=False,
        )
    return Data(train, test, None if joined is train else joined, labeled)


def open_training_images(recipe: Recipe, data: str | None = None) -> ImageSource:
    """Open all images to train on, and no others.

    Raises:
        BadData: no source is named, or it cannot be read.
    """
    return with_extra(_open_train(recipe, data), recipe.data.extra_source, recipe.data.extra_repeats)


def _open_train(recipe: Recipe, data: str | None) -> ImageSource:
    """The main source's training images.

    Raises:
        BadData: no source is named, or it cannot be read.
    """
    source = data or recipe.data.source
    if source is None:
        raise BadData(f"the recipe {recipe.name} needs images: add --data (a folder, a .tar or a .parquet)")
    train = open_source(source, "train")
    prepare_stream(train, recipe)
    return random_subset(train, recipe.data.max_images)
