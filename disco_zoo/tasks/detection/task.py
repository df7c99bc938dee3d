"""A detector's training: its losses, its optimizer, and precise BatchNorm statistics.

The statistics are averages over many training batches, taken before measuring (detectron2's Precise-BN).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from disco_zoo.tasks.dense_task import Batch
from disco_zoo.tasks.detection.settings import DetectionSettings


@torch.no_grad()
def set_precise_statistics(model: nn.Module, batches: Iterable[Any], forward: Callable[[Any], object]) -> int:
    """Replace the running statistics of each BatchNorm that learns by their average over `batches`.

    Args:
        forward: runs the model in train mode on one batch; torch's random state is put back afterwards.

    Returns:
        How many BatchNorms were set; 0 where all are frozen, and then no batch is read.
    """
    training = model.training
    model.train()
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # then torch takes the plain average
        if norms:
            with torch.random.fork_rng():
                for batch in batches:
                    forward(batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.train(training)
    return len(norms)


_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)


def detector_losses(
    detector: Any, batch: Batch, device: torch.device | str, precision: str = "fp32"
) -> dict[str, Tensor]:
    """torchvision's named losses of a batch; the detector is in train mode."""
    images = [image.to(device, non_blocking=True) / 255.0 for image in batch[0]]
    targets = [{key: value.to(device) for key, value in target.items()} for target in batch[1]]
    with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16"):
        losses: dict[str, Tensor] = detector(images, targets)
    return losses


def detector_optimizer(detector: nn.Module, settings: DetectionSettings) -> torch.optim.Optimizer:
    """Weight decay on all that learns but normalisation layers."""
    norm_tensors = {id(p) for m in detector.modules() if isinstance(m, _NORMS) for p in m.parameters(recurse=False)}
    learning = [p for p in detector.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learning if id(p) not in norm_tensors], "weight_decay": settings.weight_decay},
        {"params": [p for p in learning if id(p) in norm_tensors], "weight_decay": 0.0},
    ]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.lr)
    return torch.optim.SGD(groups, lr=settings.lr, momentum=0.9)
