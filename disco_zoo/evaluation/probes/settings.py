"""Settings of a probe besides its protocol, and its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from disco_zoo.core.schema import Interpolation
from disco_zoo.data.dataset import ImageSource
from disco_zoo.evaluation.features import Features, Progress, extract_features
from disco_zoo.models.engine import EngineName
from disco_zoo.protocols.finetune import FinetuneProtocol
from disco_zoo.protocols.linear import IMAGENET_STD, LinearProtocol
from disco_zoo.transforms.eval import eval_resize_size


@dataclass(frozen=True)
class ProbeSettings:
    """Settings of a probe besides its protocol.

    Attributes:
        image_size, resize_size: side of the views, and the shorter side before EVAL's crop, in pixels.
        mean, std: of the backbone, for RGB in 0..1.
        batch_size: images a step.
        epochs: passes over the training images.
        workers: processes that read images.
        crop_scale: smallest and largest share of the area that a training crop has.
        interpolation: of training and test images.
        engine: what computes EVAL features, see `forward_by`.
        crops: views of each training image, whose features are kept; None for new ones in each epoch.
    """

    image_size: int
    resize_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    batch_size: int
    epochs: int
    seed: int
    device: torch.device | str
    workers: int
    crop_scale: tuple[float, float] = (0.08, 1.0)
    interpolation: Interpolation = "bilinear"
    engine: EngineName = "torch"
    crops: int | None = None

    def features(
        self, backbone: nn.Module, source: ImageSource, progress: Progress | None, first: int, total: int
    ) -> Features:
        """EVAL features of a source; progress counts on from `first` of `total`."""
        return extract_features(
            backbone,
            source,
            image_size=self.image_size,
            resize_size=self.resize_size,
            interpolation=self.interpolation,
            mean=self.mean,
            std=self.std,
            batch_size=self.batch_size,
            device=self.device,
            workers=self.workers,
            progress=None if progress is None else lambda done, _: progress(first + done, total),
            engine=self.engine,
        )


def probe_settings(
    protocol: LinearProtocol | FinetuneProtocol,
    *,
    image_size: int,
    resize_size: int | None,
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int,
    epochs: int | None,
    seed: int,
    device: torch.device | str,
    workers: int,
    engine: EngineName = "torch",
    crops: int | None = None,
) -> ProbeSettings:
    """The settings of a probe, with what its protocol says of views and of ImageNet's std (SwAV writes .228)."""
    return ProbeSettings(
        image_size=image_size,
        resize_size=eval_resize_size(image_size) if resize_size is None else resize_size,
        mean=tuple(mean),
        std=protocol.imagenet_std if tuple(std) == IMAGENET_STD else tuple(std),
        batch_size=batch_size,
        epochs=epochs or protocol.epochs,
        seed=seed,
        device=device,
        workers=workers,
        crop_scale=protocol.crop_scale,
        interpolation=protocol.interpolation,
        engine=engine,
        crops=crops,
    )


@dataclass(frozen=True)
class LinearResult:
    """The result of a probe; accuracies in percent.

    Attributes:
        protocol: name of the protocol, with what is not as in the paper: `disco@10ep`, `disco@lr30`.
        top1: the reported figure: the papers' best epoch on the test images, slightly optimistic.
        last_top1: of the last epoch; the same as `top1` for `fast`, which has no epochs.
        top5: in the epoch of `top1`; None with five classes or fewer.
        best_epoch: epoch of `top1`, from 1; None for `fast`.
        top1_per_epoch: one figure an epoch.
        settings: everything that fixes the probe, ready for JSON.
        top1_per_epoch_by_lr: of each rate of a sweep; shorter where the rate diverged. Test images choose the rate.
        last_top5: of the last epoch.
        unreadable: one message for each test image that is not part of the figures.
    """

    protocol: str
    top1: float
    last_top1: float
    top5: float | None
    best_epoch: int | None = None
    top1_per_epoch: tuple[float, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    top1_per_epoch_by_lr: dict[str, tuple[float, ...]] = field(default_factory=dict)
    last_top5: float | None = None
    unreadable: tuple[str, ...] = ()


Score = tuple[float, float | None]
"""Top-1 and top-5 (None with five classes or fewer) after an epoch, in percent."""


def from_epochs(protocol: str, scores: list[Score], settings: dict[str, Any], **others: Any) -> LinearResult:
    """The result of a probe from its epochs' scores: the first best and the last are kept apart."""
    best = max(range(len(scores)), key=lambda epoch: scores[epoch][0])
    return LinearResult(
        protocol,
        top1=scores[best][0],
        last_top1=scores[-1][0],
        top5=scores[best][1],
        best_epoch=best + 1,
        top1_per_epoch=tuple(top1 for top1, _ in scores),
        settings=settings,
        last_top5=scores[-1][1],
        **others,
    )
