"""torchvision's Faster and Mask R-CNN around a backbone of ours.

What remains different from the papers' detectron2: smooth L1 with β = 1/9 where detectron2 takes L1; batches are not
grouped by aspect ratio; with masks, C4's last stage runs once for boxes and once for masks; and a run has one process,
so that BatchNorm sees the whole batch without synchronising.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign

from disco_zoo.tasks.detection.c4 import AlignedRegions, C4Map, LastStage, PooledRegions, RegionMaps
from disco_zoo.tasks.detection.pyramid import LEVELS, Pyramid
from disco_zoo.tasks.detection.resize import SmoothTransform
from disco_zoo.tasks.detection.settings import DetectionSettings

RATIOS = (0.5, 1.0, 2.0)
MASK_CHANNELS = 256
MASK_LAYERS = 4


def build_detector(
    backbone: nn.Module,
    num_classes: int,
    settings: DetectionSettings,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    masks: bool = False,
    freeze: bool = False,
    title: str = "the model",
) -> Any:
    """A detector whose backbone has the given one's tensors and whose other layers are random.

    Args:
        backbone: headless timm model with its weights; the detector takes it over and drops its last layers.
        num_classes: without background.
        mean, std: of the backbone's input, for RGB in 0..1.
        masks: Mask R-CNN instead of Faster R-CNN.
        freeze: the backbone's maps do not learn. (C4's last stage is part of the head and does.)
        title: the backbone's name for error messages.

    Returns:
        torchvision's `GeneralizedRCNN`: images as a list of float (3, H, W) in 0..1, boxes in pixels.

    Raises:
        DiscoZooError: the backbone gives no such feature maps.
    """
    fixed: dict[str, Any] = {
        "title": title,
        "frozen": freeze,
        "freeze_batch_norm": settings.batch_norm == "frozen",
    }
    if settings.neck == "c4":
        parts = _c4_parts(backbone, num_classes, settings, masks, fixed)
    else:
        parts = _fpn_parts(backbone, num_classes, settings, masks, fixed)
    detector = (MaskRCNN if masks else FasterRCNN)(
        rpn_pre_nms_top_n_train=settings.proposals_before_nms,
        rpn_post_nms_top_n_train=settings.proposals,
        rpn_pre_nms_top_n_test=settings.test_proposals_before_nms,
        rpn_post_nms_top_n_test=settings.test_proposals,
        box_batch_size_per_image=settings.regions,
        **parts,
    )
    detector.transform = SmoothTransform(settings.sizes, settings.max_size, list(mean), list(std))
    return detector.to(memory_format=torch.channels_last)


def _fpn_parts(
    backbone: nn.Module, num_classes: int, settings: DetectionSettings, masks: bool, fixed: dict[str, Any]
) -> dict[str, Any]:
    channels = settings.channels
    parts = {
        "backbone": Pyramid(backbone, channels, **fixed),
        "rpn_anchor_generator": AnchorGenerator(tuple((s,) for s in settings.anchor_sizes), (RATIOS,) * 5),
        "box_roi_pool": MultiScaleRoIAlign(list(LEVELS), 7, 2),
        "box_head": TwoMLPHead(channels * 7 * 7, settings.head_width),
        "box_predictor": _box_predictor(settings.head_width, num_classes),
    }
    if masks:
        width = min(MASK_CHANNELS, channels)
        parts |= {
            "mask_roi_pool": MultiScaleRoIAlign(list(LEVELS), 14, 2),
            "mask_head": MaskRCNNHeads(channels, [width] * MASK_LAYERS, 1),
            "mask_predictor": MaskRCNNPredictor(width, width, num_classes + 1),
        }
    return parts


def _c4_parts(
    backbone: nn.Module, num_classes: int, settings: DetectionSettings, masks: bool, fixed: dict[str, Any]
) -> dict[str, Any]:
    body = C4Map(backbone, **fixed)
    last = LastStage(body.last_stage, body.last_channels, freeze_batch_norm=bool(fixed["freeze_batch_norm"]))
    parts = {
        "backbone": body,
        "rpn_anchor_generator": AnchorGenerator((settings.anchor_sizes,), (RATIOS,)),
        "box_roi_pool": AlignedRegions(),
        "box_head": PooledRegions(last),
        "box_predictor": _box_predictor(body.last_channels, num_classes),
    }
    if masks:
        parts |= {
            "mask_roi_pool": AlignedRegions(),
            "mask_head": RegionMaps(last),
            "mask_predictor": MaskRCNNPredictor(body.last_channels, MASK_CHANNELS, num_classes + 1),
        }
    return parts


def _box_predictor(width: int, num_classes: int) -> FastRCNNPredictor:
    """Small at first, as in detectron2: the first losses are then those of the background alone."""
    predictor = FastRCNNPredictor(width, num_classes + 1)
    nn.init.normal_(predictor.cls_score.weight, std=0.01)
    nn.init.normal_(predictor.bbox_pred.weight, std=0.001)
    nn.init.zeros_(predictor.cls_score.bias)
    nn.init.zeros_(predictor.bbox_pred.bias)
    return predictor
