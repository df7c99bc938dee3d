"""Encodes views of two sizes: one pass of the backbone per size, one pass of the head over all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class TwoStages(Protocol):
    """What `disco_zoo.models.encoder.Encoder` is: a backbone behind its normalisation, and a head."""

    def features(self, views: Tensor, size: int | None = None) -> Tensor: ...

    def embeddings(self, features: Tensor) -> Tensor: ...


def embed_views(
    encoder: TwoStages, views: Sequence[Tensor], num_views: int, small_size: int | None = None
) -> list[Tensor]:
    """Embed each view, with one forward of the backbone for the big views and one for the small ones.

    As in SwAV (spec 2.9 and 2.10) BatchNorm of the backbone sees all views of a size as one batch, and BatchNorm of the
    head all views.

    Args:
        encoder: sees uint8 views (B, 3, S, S) at a side (None: its own) and gives rows (B, D).
        views: big views (b, 3, S, S), then small ones (b, 3, s, s).
        num_views: how many are big.
        small_size: side in pixels at which the encoder sees the small ones.

    Returns:
        Rows (b, D), one tensor a view, in the order of `views`.
    """
    groups = [(views[:num_views], None), (views[num_views:], small_size)]
    features = [encoder.features(torch.cat(list(group)), size) for group, size in groups if group]
    return list(encoder.embeddings(torch.cat(features)).chunk(len(views)))
