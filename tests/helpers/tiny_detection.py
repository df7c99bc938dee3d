"""A detector small enough to be trained in a test."""

from __future__ import annotations

from typing import Any

import torch

from disco_zoo.networks.input_size import create_for_any_size
from disco_zoo.tasks.detection.network import build_detector
from disco_zoo.tasks.detection.settings import DetectionSettings, detection_settings

TINY = (
    "sizes=[64]",
    "channels=16",
    "head_width=16",
    "regions=16",
    "proposals_before_nms=50",
    "proposals=20",
    "test_proposals_before_nms=50",
    "test_proposals=20",
    "batch_size=2",
    "anchor_sizes=[8, 16, 32, 64, 128]",
    "eval_every=0",
    "warmup_steps=0",
)


def tiny_settings(*changes: str) -> DetectionSettings:
    return detection_settings("fast", None, [*TINY, *changes])


def tiny_detector(
    settings: DetectionSettings, *, model: str = "test_resnet", num_classes: int = 3, **options: Any
) -> Any:
    torch.manual_seed(0)
    backbone = create_for_any_size(model, num_classes=0)
    return build_detector(backbone, num_classes, settings, mean=(0.5,) * 3, std=(0.5,) * 3, title=model, **options)
