"""Golden features: one stored input and what a network makes of it, to prove the whole path from name to number.

A file `*.golden.safetensors` holds "input" (1, 3, S, S) and "features" (1, D), both float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from disco_zoo.errors import BadCheckpoint, Damaged

# Of the largest feature. Other machines and threads differ by 1e-6 to 1e-5, the wrong padding or BatchNorm eps by 1e-1.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class GoldenDifference:
    """How far features lie from the stored ones: `largest` = max |Δ|, `scale` = max |stored|."""

    largest: float
    scale: float

    @property
    def ok(self) -> bool:
        """Within `TOLERANCE` of the scale; NaN is not."""
        return self.largest <= TOLERANCE * self.scale


def golden_input(size: int) -> Tensor:
    """A fixed smooth pattern (1, 3, size, size), about as large as a normalised photo; the same on every machine."""
    y, x = np.mgrid[0:size, 0:size] / size
    turn = 2 * np.pi
    waves = [np.sin(turn * ((c + 1) * x + (3 - c) * y)) + np.cos(turn * (5 * x * y + c / 3)) for c in range(3)]
    return torch.from_numpy(np.stack(waves).astype(np.float32))[None]


def write_golden(path: Path, model: nn.Module, input_size: int) -> None:
    """Compute the features of `golden_input(input_size)` and store both.

    Raises:
        BadCheckpoint: the network gives NaN or infinity.
    """
    images = golden_input(input_size)
    features = features_of(model, images)
    if not torch.isfinite(features).all():
        raise BadCheckpoint("These weights give NaN or infinite features for an ordinary image: they are damaged")
    save_file({"input": images, "features": features}, path, metadata={"format": "pt"})


def compare_with_golden(path: Path, model: nn.Module) -> GoldenDifference:
    """Recompute the features of a stored input.

    Raises:
        Damaged: `path` holds no input and features that fit each other and the model.
    """
    try:
        stored = load_file(path)
        images, wanted = stored["input"], stored["features"]
        difference = (features_of(model, images) - wanted).abs().max()
    except (OSError, LookupError, RuntimeError, SafetensorError) as error:
        raise Damaged(f"{path} holds no golden features: {' '.join(str(error).split())[:200]}") from error
    return GoldenDifference(float(difference), float(wanted.abs().max()))


def features_of(model: nn.Module, images: Tensor) -> Tensor:
    """Pooled features (N, D) in eval mode, without gradient; the model's mode is left as it was."""
    was_training = model.training
    try:
        with torch.inference_mode():
            return model.eval()(images).float().clone()
    finally:
        model.train(was_training)
