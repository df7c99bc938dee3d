"""Features extracted by all processes of a run, each its share of the images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from disco_zoo.distributed import copy_buffers_from_first, gather_objects, num_processes, rank
from disco_zoo.evaluate.features import Features, LabelledImages, extract_features


def shared_features(backbone: nn.Module, source: LabelledImages, *, indices: Sequence[int], **options: Any) -> Features:
    """As `extract_features`, for all processes to call together: each computes a part, and all get the whole.

    BatchNorm's statistics, of which each process has its own between two steps, are those of the first one.

    Args:
        indices: which images, as many as there are processes or more.
        options: of `extract_features`.
    """
    if num_processes() == 1:
        return extract_features(backbone, source, indices=indices, **options)
    copy_buffers_from_first(backbone, options.get("device", "cpu"))
    own = extract_features(backbone, source, indices=indices[rank() :: num_processes()], **options)
    parts: list[Features] = gather_objects(own)
    labels = [part.labels for part in parts]
    return Features(
        torch.cat([part.features for part in parts]),
        None if any(found is None for found in labels) else torch.cat([_known(found) for found in labels]),
        tuple(message for part in parts for message in part.unreadable),
    )


def _known(labels: Tensor | None) -> Tensor:
    assert labels is not None
    return labels
