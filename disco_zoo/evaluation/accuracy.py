"""Top-1 and top-5 of class scores."""

from __future__ import annotations

import torch
from torch import Tensor


def top1_top5(scores: Tensor, labels: Tensor) -> tuple[float, float | None]:
    """Accuracies in percent of class scores (N, K); no top-5 with five classes or fewer."""
    top1 = 100.0 * (scores.argmax(dim=1) == labels).sum().item() / len(labels)
    if scores.shape[1] <= 5:
        return top1, None
    in_top5 = (scores.topk(5, dim=1).indices == labels[:, None]).any(dim=1)
    return top1, 100.0 * in_top5.sum().item() / len(labels)


def class_weight(num_classes: int, width: int, generator: torch.Generator) -> Tensor:
    """The papers' start of a linear classifier: weight (num_classes, width) ~ N(0, 0.01²); the bias starts at 0."""
    return torch.empty(num_classes, width).normal_(0.0, 0.01, generator=generator)
