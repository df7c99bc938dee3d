"""Accuracy figures of a classifier on labelled images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from disco_zoo.data.dataset import ImageSource
from disco_zoo.evaluation.features import Progress, extract_features
from disco_zoo.evaluation.metrics import confusion_matrix, mean_recall, top1_top5, wilson_interval
from disco_zoo.models.classifier_dir import Classifier


@dataclass(frozen=True)
class Scores:
    """Figures of a classifier on N images.

    Attributes:
        top1, top5: in percent; no top-5 with five classes or fewer.
        interval: 95 % Wilson interval of top-1, in percent.
        mean_recall: balanced accuracy in percent: each class counts the same.
        loss: mean cross-entropy in nats.
        matrix: int64 (K, K), rows the true classes.
        unreadable: a message for each image that could not be read and is not among the N.
    """

    top1: float
    top5: float | None
    interval: tuple[float, float]
    mean_recall: float
    loss: float
    matrix: Tensor
    unreadable: tuple[str, ...] = ()

    @property
    def num_images(self) -> int:
        return int(self.matrix.sum())

    def as_json(self) -> dict[str, Any]:
        top5 = {} if self.top5 is None else {"top5": self.top5}
        return {
            "top1": self.top1,
            **top5,
            "top1_interval": list(self.interval),
            "mean_recall": self.mean_recall,
            "loss": self.loss,
            "num_images": self.num_images,
            "unreadable_images": len(self.unreadable),
        }


def scores_of(logits: Tensor, labels: Tensor, unreadable: tuple[str, ...] = ()) -> Scores:
    """Scores of logits float32 (N, K) against labels int64 (N,)."""
    top1, top5 = top1_top5(logits, labels)
    matrix = confusion_matrix(labels, logits.argmax(dim=1), logits.shape[1])
    loss = F.cross_entropy(logits, labels).item()
    return Scores(top1, top5, wilson_interval(top1, len(labels)), mean_recall(matrix), loss, matrix, unreadable)


def score(
    classifier: Classifier,
    source: ImageSource,
    *,
    device: torch.device | str,
    workers: int,
    batch_size: int = 128,
    progress: Progress | None = None,
) -> Scores:
    """Classify the images of a source in evaluation mode; the network's modes are as before afterwards.

    Raises:
        BadData: no image, or too many that cannot be read.
    """
    logits = extract_features(
        classifier.network,
        source,
        image_size=classifier.image_size,
        resize_size=classifier.resize_size,
        mean=classifier.mean,
        std=classifier.std,
        batch_size=batch_size,
        device=device,
        workers=workers,
        progress=progress,
    )
    return scores_of(logits.features, logits.truth, logits.unreadable)
