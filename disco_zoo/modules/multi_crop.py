"""Views of two sizes through one network: a forward a size, all views of a size in one batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Embed = Callable[[Tensor, int | None], Tensor]


def embed_views(embed: Embed, views: Sequence[Tensor], num_views: int, small_size: int | None = None) -> list[Tensor]:
    """Embed each view, with one forward for the big views and one for the small ones.

    BatchNorm in train mode sees all views of a size as one batch, as in SwAV.

    Args:
        embed: maps uint8 views (B, 3, S, S) and the side to see them at (None: the network's own) to rows (B, D).
        views: big views (b, 3, S, S), then small ones (b, 3, s, s).
        num_views: how many are big.
        small_size: side in pixels at which the network sees the small ones.

    Returns:
        Rows (b, D), one tensor a view, in the order of `views`.
    """
    rows: list[Tensor] = []
    for group, size in ((views[:num_views], None), (views[num_views:], small_size)):
        if group:
            rows += embed(torch.cat(list(group)), size).chunk(len(group))
    return rows
