"""Features extracted by all processes of a run, each its share of the images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from disco_zoo.core.distributed import copy_buffers_from_first, gather_on_first, num_processes, rank
from disco_zoo.evaluation.features import Features, LabeledImages, extract_features


def shared_features(backbone: nn.Module, source: LabeledImages, *, indices: Sequence[int], **options: Any) -> Features:
    """As `extract_features`, for all processes to call together: each computes a part, and the first gets the whole.

    The whole is in the order of `indices`, whatever the number of processes: some probes split rows by their place.
    BatchNorm's statistics, of which each process has its own between two steps, are those of the first one.

    Args:
        indices: which images, as many as there are processes or more.
        options: of `extract_features`.

    Returns:
        All features on the first process, the own part on the others.
    """
    if num_processes() == 1:
        return extract_features(backbone, source, indices=indices, **options)
    copy_buffers_from_first(backbone, options.get("device", "cpu"))
    first, last = (len(indices) * number // num_processes() for number in (rank(), rank() + 1))
    own = extract_features(backbone, source, indices=indices[first:last], **options)
    parts: list[Features] | None = gather_on_first(own)
    if parts is None:
        return own
    return Features(
        torch.cat([part.features for part in parts]),
        None if source.labels is None else torch.cat([_known(part.labels) for part in parts]),
        tuple(message for part in parts for message in part.unreadable),
    )


def _known(labels: Tensor | None) -> Tensor:
    assert labels is not None
    return labels
