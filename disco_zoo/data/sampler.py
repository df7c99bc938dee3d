"""The order of an epoch, and each process's share of every batch, as a function of (seed, epoch, step)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler

from disco_zoo.core.random_streams import stream_generator


def epoch_order(num_samples: int, seed: int, epoch: int) -> Tensor:
    """The permutation int64 (N,) in which `epoch` visits the images, the same for any number of processes."""
    return torch.randperm(num_samples, generator=stream_generator("order", seed, epoch))


class BatchShare(Sampler[list[int]]):
    """One process's rows of each global batch of an epoch, from `start_batch` on.

    Args:
        batch_size: images in a global batch, over all processes; a multiple of `num_processes`.
        num_batches: of the whole epoch.
        start_batch: first batch of the epoch to deliver (the position of a resumed run).
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        *,
        num_batches: int,
        seed: int,
        epoch: int,
        start_batch: int = 0,
        rank: int = 0,
        num_processes: int = 1,
    ) -> None:
        self.num_samples, self.batch_size = num_samples, batch_size
        self.num_batches, self.start_batch = num_batches, start_batch
        self.seed, self.epoch = seed, epoch
        self.rank, self.num_processes = rank, num_processes

    def __len__(self) -> int:
        return self.num_batches - self.start_batch

    def __iter__(self) -> Iterator[list[int]]:
        order = epoch_order(self.num_samples, self.seed, self.epoch)
        share = self.batch_size // self.num_processes
        for batch in range(self.start_batch, self.num_batches):
            first = batch * self.batch_size + self.rank * share
            yield order[first : first + share].tolist()
