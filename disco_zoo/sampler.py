"""The order of an epoch, and each process's share of every batch, as a function of (seed, epoch, step)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler

from disco_zoo.errors import BadRecipe
from disco_zoo.randomness import stream_generator
from disco_zoo.recipe_optim import OptimSection


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


def require_batches(optim: OptimSection, num_images: int, num_processes: int) -> None:
    """Check that a batch can be shared by processes and accumulation steps, and filled from the data.

    Raises:
        BadRecipe: it cannot; the message names a size that can.
    """
    forwards = optim.accumulation_steps * num_processes
    if optim.batch_size < 2 * forwards:
        raise BadRecipe(
            f"optim.batch_size {optim.batch_size} leaves a forward fewer than two images, which BatchNorm needs. "
            f"Type: --set optim.batch_size={2 * forwards}"
        )
    if num_images < optim.batch_size:
        raise BadRecipe(
            f"optim.batch_size {optim.batch_size} is larger than the data ({num_images} images). "
            f"Type: --set optim.batch_size={max(2, num_images // 2)}"
        )
    if optim.batch_size % forwards:
        raise BadRecipe(
            f"optim.batch_size {optim.batch_size} cannot be shared by {num_processes} processes with "
            f"{optim.accumulation_steps} accumulation steps: make it a multiple of {forwards}"
        )
