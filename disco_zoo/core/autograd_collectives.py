"""Collective operations that gradients pass through, for losses that relate rows of different processes.

Let P processes compute losses L_1 ... L_P, each from what all of them put in. DDP averages the gradients of the
weights, so training descends (L_1 + ... + L_P) / P. The derivative of that sum with respect to what process p put in
collects a term from each process; hence the backward of both operations here adds up the incoming gradients over the
processes, without a further factor. DDP's division by P then turns the sum into the gradient of the mean:

- a loss J of joint values that each process computes alike: the sum is P · ∂J, the mean ∂J, as on one process;
- a mean over a process's own rows: no communication, and the mean of P such means is the joint one, for equal shares.

`torch.distributed.nn` has operations of the same kind; these two need no group and are the identity on one process.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from disco_zoo.core.distributed import gather_rows, num_processes, rank


def sum_over_processes_with_grad(values: Tensor) -> Tensor:
    """Sum a tensor of one shape over the processes; the gradient is summed over them, too."""
    return values if num_processes() == 1 else _Sum.apply(values)


def gather_rows_with_grad(rows: Tensor) -> Tensor:
    """Concatenate every process's rows (b, ...) in rank order: (b * processes, ...).

    The gradient of the own rows is summed over the processes.
    """
    return rows if num_processes() == 1 else _Gather.apply(rows)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return _summed(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _summed(gradient)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.share = slice(rank() * len(rows), (rank() + 1) * len(rows))
        return gather_rows(rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _summed(gradient)[ctx.share]


def _summed(values: Tensor) -> Tensor:
    total = values.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total
