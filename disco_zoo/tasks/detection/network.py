"""torchvision's Faster and Mask R-CNN around a backbone of ours.

What remains different from the papers' detectron2: smooth L1 with β = 1/9 where detectron2 takes L1; batches are not
grouped by aspect ratio; with masks, C4's last stage runs once for boxes and once for masks; and a run has one process,
so that BatchNorm sees the whole batch without synchronising. Images are resized without aliasing, as Pillow does it on
which backbones are trained: photos are ten times as large, and torchvision skips pixels.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from disco_zoo.networks.feature_maps import PYRAMID_STRIDES, FeatureMaps, map_strides
from disco_zoo.tasks.detection.c4 import AlignedRegions, C4Map, LastStage, PooledRegions, RegionMaps
from disco_zoo.tasks.detection.settings import DetectionSettings


class SmoothTransform(GeneralizedRCNNTransform):
    """torchvision's normalising, resizing and batching, with its sizes, and each new pixel a mean of all it covers."""

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor] | None]:
        """An image (3, H, W) and its target with a shorter side from `min_size`, the last one when not training."""
        former = (image.shape[-2], image.shape[-1])
        side = self.torch_choice(self.min_size) if self.training else self.min_size[-1]
        scale = min(side / min(former), self.max_size / max(former))
        size = (max(1, int(former[0] * scale)), max(1, int(former[1] * scale)))
        image = F.interpolate(image[None], size=size, mode="bilinear", antialias=True)[0]
        if target is None:
            return image, None
        resized = {**target, "boxes": resize_boxes(target["boxes"], list(former), list(size))}
        if "masks" in target:
            resized["masks"] = F.interpolate(target["masks"][:, None].float(), size=size)[:, 0].byte()
        return image, resized


LEVELS = ("0", "1", "2", "3")


class Pyramid(nn.Module):
    """Maps named "0" to "3" of strides 4 to 32 and "pool" of stride 64, each with `out_channels` channels.

    A backbone with maps of these four strides gets torchvision's FPN (Lin et al. 2017). One with maps of stride 16
    alone, as a plain transformer, gets its map enlarged and reduced first (ViTDet, Li et al. 2022).
    """

    def __init__(
        self, backbone: nn.Module, out_channels: int, *, title: str, frozen: bool, freeze_batch_norm: bool
    ) -> None:
        super().__init__()
        strides = tuple(map_strides(backbone, title))
        plain = strides == (16,)
        wanted = strides if plain else PYRAMID_STRIDES
        self.maps = FeatureMaps(backbone, wanted, title=title, frozen=frozen, freeze_batch_norm=freeze_batch_norm)
        channels = self.maps.channels * 4 if plain else self.maps.channels
        self.rescale = nn.ModuleList(_rescalings(channels[0])) if plain else None
        self.fpn = FeaturePyramidNetwork(list(channels), out_channels, extra_blocks=LastLevelMaxPool())
        self.out_channels = out_channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = self.maps(images)
        if self.rescale is not None:
            maps = [layer(maps[0]) for layer in self.rescale]
        levels: dict[str, Tensor] = self.fpn(OrderedDict(zip(LEVELS, maps, strict=True)))
        return levels


def _rescalings(channels: int) -> list[nn.Module]:
    """From stride 16 to strides 4, 8, 16 and 32."""

    def twice() -> nn.Module:
        return nn.ConvTranspose2d(channels, channels, 2, stride=2)

    return [nn.Sequential(twice(), nn.GELU(), twice()), twice(), nn.Identity(), nn.MaxPool2d(2)]


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
