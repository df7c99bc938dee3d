"""A batch in shared memory, allocated where a failure can be reported to the waiting process."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

SHARED_MEMORY = Path("/dev/shm")  # where Linux keeps it
MIB = 2**20


class SharedCollate:
    """A collate function whose tensors lie in shared memory when it returns.

    A loader's worker would otherwise move them there in the thread that feeds its queue. What fails in that thread is
    printed and dropped, and the process that waits for the batch waits for ever.
    """

    def __init__(self, collate: Callable[[Any], Any]) -> None:
        self.collate = collate

    def __call__(self, items: Any) -> Any:
        batch = self.collate(items)
        share(batch)
        return batch


def share(batch: Any) -> None:
    """Move the tensors of a batch to shared memory, in place: those in dicts, lists, tuples and dataclasses.

    Raises:
        RuntimeError: there is no room for them.
    """
    if isinstance(batch, Tensor):
        batch.share_memory_()
    elif isinstance(batch, dict):
        for value in batch.values():
            share(value)
    elif isinstance(batch, list | tuple):
        for value in batch:
            share(value)
    elif dataclasses.is_dataclass(batch):
        for field in dataclasses.fields(batch):
            share(getattr(batch, field.name))


def shared_memory_size() -> str:
    """Its size as text; "" where it is unknown."""
    try:
        found = os.statvfs(SHARED_MEMORY)
    except (OSError, AttributeError):
        return ""
    return f"{SHARED_MEMORY} of {found.f_blocks * found.f_frsize / MIB:.0f} MiB"
