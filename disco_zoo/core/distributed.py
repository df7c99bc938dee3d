"""Collective operations, each the identity on one process; and work that one process does while the others wait.

Two of them let gradients pass, for losses that relate rows of different processes. Let P processes compute losses
L_1 ... L_P, each from what all of them put in. DDP averages the gradients of the weights, so training descends
(L_1 + ... + L_P) / P. The derivative of that sum with respect to what process p put in collects a term from each
process; hence the backward of both operations adds up the incoming gradients over the processes, without a further
factor. DDP's division by P then turns the sum into the gradient of the mean:

- a loss J of joint values that each process computes alike: the sum is P · ∂J, the mean ∂J, as on one process;
- a mean over a process's own rows: no communication, and the mean of P such means is the joint one, for equal shares.

`torch.distributed.nn` has operations of the same kind; these two need no group and are the identity on one process.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from disco_zoo.core.launcher import will_be_restarted
from disco_zoo.errors import DiscoZooError, LostProcess


def num_processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if num_processes() > 1 else 0


def gather_objects(value: Any) -> list[Any]:
    """Every process's value, in rank order."""
    if num_processes() == 1:
        return [value]
    values: list[Any] = [None] * num_processes()
    dist.all_gather_object(values, value)
    return values


def gather_on_first(value: Any) -> list[Any] | None:
    """Every process's value in rank order, on the first process; None on the others."""
    if num_processes() == 1:
        return [value]
    values: list[Any] | None = [None] * num_processes() if rank() == 0 else None
    dist.gather_object(value, values)
    return values


# What gloo, NCCL and the store say when a process at the other end is gone.
_GONE = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "connection was reset",
    "Socket Timeout",
)


@contextlib.contextmanager
def peers(how_to_go_on: Callable[[], str]) -> Iterator[None]:
    """Report in one line that another process of the run has ended, in place of a collective's traceback.

    Args:
        how_to_go_on: says what is kept, and what to type.

    Raises:
        LostProcess: a collective failed because one is.
    """
    try:
        yield
    except RuntimeError as error:
        gone = isinstance(error, (dist.DistBackendError, dist.DistNetworkError)) or any(w in str(error) for w in _GONE)
        if num_processes() == 1 or not gone:
            raise
        again = "What is finished is kept, and the launcher starts the run again"
        raise LostProcess(
            "another process of this run ended; if it was not killed, its own message says why. "
            f"{again if will_be_restarted() else how_to_go_on()}"
        ) from error


def gather_rows(rows: Tensor) -> Tensor:
    """Concatenate every process's rows (b, ...) in rank order: (b * processes, ...), without gradient."""
    if num_processes() == 1:
        return rows.detach()
    parts = [torch.empty_like(rows) for _ in range(num_processes())]
    dist.all_gather(parts, rows.detach().contiguous())
    return torch.cat(parts)


@torch.no_grad()
def copy_buffers_from_first(module: nn.Module, device: torch.device | str) -> None:
    """Give every process the first one's buffers of `module`, where DDP keeps their own between two steps.

    Args:
        device: one that the processes can talk through.
    """
    for buffer in module.buffers() if num_processes() > 1 else ():
        shared = buffer.to(device)
        dist.broadcast(shared, src=0)
        buffer.copy_(shared)


def mean_over_processes(value: Tensor) -> Tensor:
    """Average a tensor over the processes, without gradient."""
    if num_processes() == 1:
        return value.detach()
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / num_processes()


def shuffle_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Shuffle-BN (MoCo, section 3.3): give each process a random share of the joint batch.

    Returns the share (b, ...) and the permutation (b * processes,) that `unshuffle_rows` needs. On one
    process a permutation changes no BatchNorm statistic, so nothing is moved.
    """
    if num_processes() == 1:
        return rows, torch.arange(len(rows), device=rows.device)
    joint = gather_rows(rows)
    permutation = torch.randperm(len(joint), device=rows.device)
    dist.broadcast(permutation, src=0)
    return joint[permutation.view(num_processes(), -1)[rank()]], permutation


def unshuffle_rows(rows: Tensor, permutation: Tensor) -> Tensor:
    """Undo `shuffle_rows` on what was computed from its share: this process's own rows in their own order."""
    if num_processes() == 1:
        return rows
    joint = gather_rows(rows)[torch.argsort(permutation)]
    return joint.view(num_processes(), -1, *rows.shape[1:])[rank()]


Heartbeat = Callable[[], None]
"""Called by the work every few seconds or more often."""

HEARTBEAT_SECONDS = 20.0
_WORKING, _DONE, _INTERRUPTED = "working", "done", "interrupted"


def on_first_process(work: Callable[[Heartbeat], None]) -> None:
    """Let the first process do `work`; the others return when it is done. All processes must call this.

    Raises:
        DiscoZooError: on the others, when the work failed on the first, which raises what went wrong.
        KeyboardInterrupt: on all of them, when the first one heard Ctrl-C.
    """
    if num_processes() == 1:
        work(lambda: None)
    elif rank() == 0:
        _work(work)
    else:
        while (word := _broadcast(None)) == _WORKING:
            pass
        if word == _INTERRUPTED:
            raise KeyboardInterrupt
        if word != _DONE:
            raise DiscoZooError(f"the first process stopped: {word}")


def _work(work: Callable[[Heartbeat], None]) -> None:
    last = time.monotonic()

    def beat() -> None:
        nonlocal last
        if time.monotonic() - last >= HEARTBEAT_SECONDS:
            last = time.monotonic()
            _broadcast(_WORKING)

    try:
        work(beat)
    except KeyboardInterrupt:
        _broadcast(_INTERRUPTED)
        raise
    except Exception as error:
        _broadcast(str(error) or type(error).__name__)
        raise
    _broadcast(_DONE)


def _broadcast(word: str | None) -> Any:
    """The first process's word, on every process."""
    words = [word]
    dist.broadcast_object_list(words, src=0)
    return words[0]


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
