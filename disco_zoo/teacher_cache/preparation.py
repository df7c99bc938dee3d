"""What a method may use for computations before training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from disco_zoo.data.dataset import ImageSource


@dataclass(frozen=True)
class Preparation:
    """Inputs for computations of a method before training.

    Attributes:
        source: the training images.
        folder: of the run; what is expensive is kept there, keyed by what it was computed from.
        seed: of the run.
        device: where the networks are.
        workers: processes that decode images.
    """

    source: ImageSource
    folder: Path
    seed: int
    device: torch.device | str
    workers: int
