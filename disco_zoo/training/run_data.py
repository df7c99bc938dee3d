"""The images of a run: opened for training and evaluation; of a stream, its requirements and batches."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from PIL import Image

from disco_zoo.config.recipe import Recipe
from disco_zoo.core.console import console
from disco_zoo.data.dataset import ImageSource, require_index
from disco_zoo.data.open_source import open_source
from disco_zoo.data.pairing import matched, open_own_pair, open_test_beside, refuse_test_among_extra
from disco_zoo.data.stream_source import StreamSource
from disco_zoo.data.subsets import JoinedSource, labeled_part, random_subset, with_extra
from disco_zoo.data.summary import tell
from disco_zoo.errors import BadData, BadRecipe
from disco_zoo.transforms.streamed_views import StreamBatches, StreamParts, StreamShare, Waiting
from disco_zoo.transforms.view_dataset import ViewPlan


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
    extra: JoinedSource | None = None
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

    @property
    def fingerprints(self) -> tuple[str, str | None]:
        """Of the training images, and of the extra ones where there are any."""
        return self.train.fingerprint(), None if self.extra is None else self.extra.extra.fingerprint()

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
        )
    extra = joined if isinstance(joined, JoinedSource) else None
    if extra is not None and test is not None:
        refuse_test_among_extra(extra.extra, test)
    return Data(train, test, extra, labeled)


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


def prepare_stream(source: ImageSource, recipe: Recipe) -> None:
    """Let a recipe train on a source; one with an index always may. Sets the number of images an epoch has.

    Raises:
        BadData: a stream where the recipe needs images by their number, or one of unknown length.
        BadRecipe: the recipe keeps an epoch's smaller last batch.
    """
    if source.has_index:
        return
    from disco_zoo.methods import METHODS

    name = recipe.method["name"]
    if METHODS[name].needs_index or recipe.method.get("cached_teacher"):
        require_index(source, f"training by {name} (what it keeps is found by the image's number)")
    if recipe.teacher is not None and recipe.teacher.cache_views:
        require_index(source, "teacher.cache_views (cached rows are found by the image's number)")
    if recipe.data.max_images is not None:
        require_index(source, "data.max_images (a random choice of all images)")
    if not isinstance(source, StreamSource) or source.shards is None:
        require_index(source, f"training by {name} (this kind of stream cannot be read again in the same order)")
        return
    if recipe.optim.last_batch == "keep":
        raise BadRecipe(f"{source.name} is a stream: its batches are whole. Type: --set optim.last_batch=drop")
    source.num_images = recipe.data.stream_images or source.num_images
    if not source.num_images:
        raise BadData(
            f"nobody says how many images {source.name} has, which is how long an epoch is. "
            "Type: --set data.stream_images=NUMBER"
        )


def require_streams(recipe: Recipe, source: ImageSource, num_processes: int) -> None:
    """Check that batches and processes can be shared by the logical streams, and that each has a shard to read.

    Raises:
        BadRecipe: they cannot; the message names a number of streams that can.
    """
    if not isinstance(source, StreamSource) or source.shards is None:
        return
    streams, shards = recipe.data.streams, source.shards.num_shards
    rows = recipe.optim.batch_size // recipe.optim.accumulation_steps
    fitting = [n for n in range(1, min(rows, shards) + 1) if rows % n == 0 and n % num_processes == 0]
    if streams in fitting:
        return
    if not fitting:
        raise BadRecipe(
            f"{source.name} has {shards} shards, too few for {num_processes} processes. Use at most {shards}, "
            "or make more and smaller shards"
        )
    why = f"{source.name} has {shards} shards"
    if rows % streams:
        why = f"a forward takes {rows} images, no multiple of it"
    elif streams % num_processes:
        why = f"{num_processes} processes cannot share them equally"
    best = max(fitting, key=lambda n: (n <= streams, n if n <= streams else -n))
    raise BadRecipe(f"data.streams {streams}: {why}. Type: --set data.streams={best}")


def stream_batches(
    recipe: Recipe,
    source: StreamSource,
    plan: ViewPlan,
    *,
    epoch: int,
    start_step: int,
    workers: int,
    device: torch.device,
    rank: int,
    num_processes: int,
) -> StreamBatches:
    """The rest of an epoch in micro-batches of one process; see `epoch_loader`."""
    assert source.shards is not None  # `prepare_stream` has been called
    optim = recipe.optim
    share = StreamShare(
        streams=recipe.data.streams,
        shuffle_buffer=recipe.data.shuffle_buffer,
        rows=optim.batch_size // optim.accumulation_steps // recipe.data.streams,
        num_batches=len(source) // optim.batch_size * optim.accumulation_steps,
        start_batch=start_step * optim.accumulation_steps,
        seed=recipe.seed,
        epoch=epoch,
        rank=rank,
        num_processes=num_processes,
    )
    return StreamBatches(StreamParts(source.name, source.shards, share, plan), workers, device)


def shuffled_images(recipe: Recipe, source: StreamSource, number: int) -> Iterator[Image.Image]:
    """The first images that training will see, RGB: at most `number`, and no more than the stream has."""
    assert source.shards is not None
    shards, streams = source.shards, min(recipe.data.streams, source.shards.num_shards)
    share = StreamShare(
        streams=streams,
        shuffle_buffer=recipe.data.shuffle_buffer,
        rows=math.ceil(number / streams),
        num_batches=1,
        start_batch=0,
        seed=recipe.seed,
        epoch=0,
    )
    waiting = [Waiting(source.name, share.open(shards, stream)) for stream in share.own_streams]
    for stream in itertools.islice(itertools.cycle(waiting), min(number, len(source))):
        yield stream.next(lambda image, _: image.rgb())[0]
