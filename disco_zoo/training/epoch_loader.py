"""The batches of an epoch, from a given step on, as micro-batches of one process: a function of (seed, epoch, step)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from disco_zoo.config.recipe import Recipe
from disco_zoo.core.loader import BoundedLoader
from disco_zoo.core.random_streams import stream_generator
from disco_zoo.data.dataset import ImageSource
from disco_zoo.data.stream_source import StreamSource
from disco_zoo.methods.base import Method
from disco_zoo.training.replay import Replay
from disco_zoo.training.replay_views import collate_replayed
from disco_zoo.training.run_data import stream_batches
from disco_zoo.transforms.view_dataset import ViewDataset, collate_views, view_plan


def epoch_order(num_samples: int, seed: int, epoch: int) -> Tensor:
    """The permutation int64 (N,) in which `epoch` visits the images, the same for any number of processes."""
    return torch.randperm(num_samples, generator=stream_generator("order", seed, epoch))


@dataclass(frozen=True)
class BatchShare(Sampler[list[int]]):
    """One process's rows of each global batch of an epoch, from `start_batch` on.

    Attributes:
        batch_size: images in a global batch, over all processes; a multiple of `num_processes`.
        num_batches: of the whole epoch.
        start_batch: first batch of the epoch to deliver (the position of a resumed run).
    """

    num_samples: int
    batch_size: int
    _: KW_ONLY
    num_batches: int
    seed: int
    epoch: int
    start_batch: int = 0
    rank: int = 0
    num_processes: int = 1

    def __len__(self) -> int:
        return self.num_batches - self.start_batch

    def __iter__(self) -> Iterator[list[int]]:
        order = epoch_order(self.num_samples, self.seed, self.epoch)
        share = self.batch_size // self.num_processes
        for batch in range(self.start_batch, self.num_batches):
            first = batch * self.batch_size + self.rank * share
            yield order[first : first + share].tolist()


def epoch_loader(
    recipe: Recipe,
    source: ImageSource,
    method: Method,
    *,
    epoch: int,
    start_step: int,
    workers: int,
    device: torch.device,
    rank: int,
    num_processes: int,
    replay: Replay | None = None,
) -> Iterable[dict[str, Any]]:
    """Batches as `collate_views` makes them.

    Args:
        method: says how many views it takes, and whose views go with an image's.
        start_step: first step of the epoch to deliver.
        workers: processes that draw views; 0 draws them in this one.
        device: where the batches go; from pinned memory they go there beside the computing.
        replay: cached views and the teacher's rows of them; None draws new views.
    """
    optim = recipe.optim
    dataset: Dataset[dict[str, Any]]
    if replay is not None:
        dataset = replay.epoch(epoch, method.companions)
    else:
        plan = view_plan(recipe.views, recipe.view_size, method.num_views)
        if isinstance(source, StreamSource):
            return stream_batches(
                recipe,
                source,
                plan,
                epoch=epoch,
                start_step=start_step,
                workers=workers,
                device=device,
                rank=rank,
                num_processes=num_processes,
            )
        dataset = ViewDataset(source, plan, seed=recipe.seed, epoch=epoch, companions=method.companions)
    share = BatchShare(
        len(source),
        optim.batch_size // optim.accumulation_steps,
        num_batches=optim.steps_per_epoch(len(source)) * optim.accumulation_steps,
        start_batch=start_step * optim.accumulation_steps,
        seed=recipe.seed,
        epoch=epoch,
        rank=rank,
        num_processes=num_processes,
    )
    return BoundedLoader(
        dataset,
        batch_sampler=share,
        collate=collate_views if replay is None else collate_replayed,
        workers=workers,
        pin_memory=device.type == "cuda",
    )


class EpochBatches:
    """The batches of one epoch after another; workers may begin with the next one before this one ends.

    Args:
        load: maps an epoch and the first of its steps to deliver to batches.
        begins_early: whether there are workers, which can draw views while this process computes.
    """

    def __init__(self, load: Callable[[int, int], Iterable[dict[str, Any]]], *, begins_early: bool) -> None:
        self.load, self.begins_early = load, begins_early
        self._begun: tuple[int, Iterator[dict[str, Any]]] | None = None

    def begin(self, epoch: int) -> None:
        """Start the workers of an epoch that comes next."""
        if self.begins_early and self._begun is None:
            self._begun = (epoch, iter(self.load(epoch, 0)))

    def rest_of(self, epoch: int, start_step: int) -> Iterable[dict[str, Any]]:
        begun, self._begun = self._begun, None
        if begun is not None and begun[0] == epoch and start_step == 0:
            return begun[1]
        return self.load(epoch, start_step)

    def close(self) -> None:
        """End the workers of an epoch that was begun and will not come."""
        self._begun = None
