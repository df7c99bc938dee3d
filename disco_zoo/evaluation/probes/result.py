"""The result of a probe."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


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
