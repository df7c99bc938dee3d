"""The input of one step: views of images, the images' numbers, and the teacher's embeddings where they are cached."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Network = Callable[[Tensor, int | None], Tensor]


@dataclass(frozen=True)
class Batch:
    """One process's share of a step.

    Attributes:
        views: uint8 (b, 3, S, S) each: the big ones, then the small ones, then in the same order the companions'.
        index: int64 (b,), the numbers of the images.
        targets: for each view the teacher's embeddings (b, D), not normalized, read from a cache; None without one.
    """

    views: Sequence[Tensor]
    index: Tensor
    targets: Sequence[Tensor] | None = None

    def teacher_embeddings(self, teacher: Network, numbers: Sequence[int], size: int | None = None) -> Tensor:
        """The teacher's embeddings (n·b, D), not normalized, of the views `numbers`, cached or from one forward.

        Args:
            teacher: maps views (n·b, 3, S, S), resized to side `size`, to embeddings.
            size: side in pixels; None for the teacher's own.
        """
        if self.targets is not None:
            return torch.cat([self.targets[number] for number in numbers])
        views = [self.views[number] for number in numbers]
        return teacher(views[0] if len(views) == 1 else torch.cat(views), size)


def batch_on(device: torch.device | str, loaded: Mapping[str, Any]) -> Batch:
    """What `collate_views` made, on the device."""
    views, index, targets = loaded["views"], loaded["index"], loaded.get("targets")
    return Batch(
        [view.to(device, non_blocking=True) for view in views],
        index.to(device, non_blocking=True),
        None if targets is None else [rows.to(device, non_blocking=True) for rows in targets],
    )
