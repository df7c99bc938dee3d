"""Requirements of training on a stream, and the stream's batches of an epoch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
from PIL import Image

from disco_zoo.config.recipe import Recipe
from disco_zoo.data.dataset import ImageSource, require_index
from disco_zoo.data.streaming.source import StreamSource
from disco_zoo.errors import BadData, BadRecipe
from disco_zoo.transforms.streamed_views import StreamBatches, StreamParts, StreamShare, Waiting
from disco_zoo.transforms.view_dataset import ViewPlan


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
