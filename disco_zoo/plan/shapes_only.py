"""Run a real step on tensors that have shapes, strides and types but no numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode


@contextlib.contextmanager
def shapes_only() -> Iterator[None]:
    """Tensors made inside take no memory, and operations on them no time; `.item()` of one is 1, or False."""
    with FakeTensorMode(allow_non_fake_inputs=True), _SomeNumber():
        yield


class _SomeNumber(TorchDispatchMode):
    """Answers whoever asks a tensor for its number: counters and flags, whose value changes no shape."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            asked: Tensor = args[0]
            return False if asked.dtype == torch.bool else 1.0 if asked.is_floating_point() else 1
        return func(*args, **(kwargs or {}))


def drop_numbers(*networks: nn.Module) -> None:
    """Inside `shapes_only`: replace parameters and buffers of the device "meta" by ones that claim to be on the CPU.

    Losses ask their tensors for a device with autocast, which "meta" has not.
    """
    known: dict[int, Tensor] = {}
    for module in (module for network in networks for module in network.modules()):
        stores: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for store in stores:
            for name, tensor in store.items():
                if tensor is not None:
                    # Tied ones stay tied.
                    store[name] = known.setdefault(id(tensor), _without_numbers(tensor))


def _without_numbers(tensor: Tensor) -> Tensor:
    empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu")
    return nn.Parameter(empty, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
