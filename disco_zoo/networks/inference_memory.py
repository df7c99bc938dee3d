"""Estimates the memory of an image's forward pass from shapes alone."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from disco_zoo.errors import DiscoZooError

USUAL_PIXELS = 512  # up to this side nobody needs an estimate
GIB = 2**30


def require_memory(network: nn.Module, size: int, title: str, option: str, images: int = 1) -> None:
    """Refuse an input size whose activations do not fit into this machine's memory, before they are computed.

    Args:
        size: side of the input in pixels.
        option: what the user would type before another size.
        images: of a batch.

    Raises:
        DiscoZooError: they do not; the message names a size or a batch that does.
    """
    free = available_bytes()
    if size <= USUAL_PIXELS or free is None:
        return
    needed = activation_bytes(network, size)
    if needed is None or needed * images <= free:
        return
    many = f"{images} image{'s' * (images > 1)}"
    if images > 1 and needed <= free:
        option, better = "--batch-size ", free // needed
    else:
        better = max(32, int(size * (free / (needed * images)) ** 0.5) // 32 * 32)  # it grows with the area, or faster
    raise DiscoZooError(
        f"{title} at {size} pixels needs about {needed * images / GIB:.1f} GiB for {many} and {free / GIB:.1f} GiB are "
        f"free. Type: {option}{better}"
    )


def activation_bytes(network: nn.Module, size: int) -> int | None:
    """Of the layer that holds most at once, input and output, for one image in float32; None where shapes do not tell.

    The networks run without gradients: what lies behind a layer is freed. Branches that wait for others are not
    counted, so a network may need somewhat more.
    """
    try:
        shapes = copy.deepcopy(network).to("meta").eval()
    except Exception:  # networks that are no PyTorch parameters, such as ONNX sessions
        return None
    most = [0]

    def note(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        tensors = [value for value in (*inputs, output) if isinstance(value, Tensor)]
        most[0] = max(most[0], 4 * sum(value.numel() for value in tensors))

    for module in shapes.modules():
        if not [*module.children()]:
            module.register_forward_hook(note)
    try:
        with torch.no_grad():
            shapes(torch.empty(1, 3, size, size, device="meta"))
    except Exception:  # it cannot look at this size, which the caller finds out, or asks for values
        return None
    return most[0] or None


def available_bytes() -> int | None:
    """Memory that this process may still take: the machine's, or its container's limit; None where it is unknown."""
    try:
        lines = Path("/proc/meminfo").read_text("utf-8").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None
    try:
        group = Path("/sys/fs/cgroup")
        limit, used = ((group / name).read_text("utf-8").strip() for name in ("memory.max", "memory.current"))
        return min(free, max(0, int(limit) - int(used)))
    except (OSError, ValueError):  # no such limit
        return free
