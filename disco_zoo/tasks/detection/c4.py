"""The C4 detector of the papers: regions of ResNet's stride-16 map go through its last stage, then a BatchNorm.

As MoCo's detectron2 file describes it (spec 4.5): the BatchNorm behind the last stage is extra, because the
pre-trained network ends in average pooling instead of the fixed scale that detection heads were made for.
"""

from __future__ import annotations

import torch
from timm.models.resnet import ResNet
from torch import Tensor, nn
from torchvision.ops import MultiScaleRoIAlign, roi_align

from disco_zoo.errors import DiscoZooError
from disco_zoo.networks.feature_maps import FeatureMaps, keep_statistics

STRIDE = 16
REGION_SIZE = 14


class C4Map(nn.Module):
    """A ResNet up to its third stage as a detector's backbone: one map named "0" of stride 16.

    Attributes:
        last_stage: the fourth one, not part of this module: the head runs it on regions.
        last_channels: of the fourth stage.
    """

    def __init__(self, backbone: nn.Module, *, title: str, frozen: bool, freeze_batch_norm: bool) -> None:
        super().__init__()
        if not isinstance(backbone, ResNet):
            raise DiscoZooError(f"C4 is for ResNets and {title} is none. Type: --neck fpn")
        self._outside = (backbone.layer4,)  # before the maps drop it; a tuple hides it from state_dict
        self.last_channels = int(backbone.num_features)
        self.maps = FeatureMaps(backbone, (STRIDE,), title=title, frozen=frozen, freeze_batch_norm=freeze_batch_norm)
        self.out_channels = self.maps.channels[0]

    @property
    def last_stage(self) -> nn.Module:
        return self._outside[0]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"0": self.maps(images)[0]}


class LastStage(nn.Module):
    """Regions (R, C, 14, 14) to features (R, C', 7, 7).

    Args:
        freeze_batch_norm: the stage's running statistics stay as they are; the norm behind it is new and learns.
    """

    def __init__(self, stage: nn.Module, channels: int, *, freeze_batch_norm: bool) -> None:
        super().__init__()
        self.stage, self.norm = stage, nn.BatchNorm2d(channels)
        self.freeze_batch_norm = freeze_batch_norm

    def train(self, mode: bool = True) -> LastStage:
        super().train(mode)
        if self.freeze_batch_norm:
            keep_statistics(self.stage)
        return self

    def forward(self, regions: Tensor) -> Tensor:
        features: Tensor = self.norm(self.stage(regions))
        return features


class PooledRegions(nn.Module):
    """Regions (R, C, 14, 14) to one vector each (R, C')."""

    def __init__(self, last: LastStage) -> None:
        super().__init__()
        self.last = last

    def forward(self, regions: Tensor) -> Tensor:
        return self.last(regions).mean((2, 3))


class RegionMaps(nn.Module):
    """As `PooledRegions` but not pooled, for masks; it borrows the stage, whose tensors are the box head's."""

    def __init__(self, last: LastStage) -> None:
        super().__init__()
        self._borrowed = (last,)

    def forward(self, regions: Tensor) -> Tensor:
        features: Tensor = self._borrowed[0](regions)
        return features


class AlignedRegions(MultiScaleRoIAlign):
    """RoIAlign with the half-pixel shift that detectron2's ROIAlignV2 has and torchvision's pooler has not."""

    def __init__(self) -> None:
        super().__init__(["0"], REGION_SIZE, 0)

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        with torch.autocast(x["0"].device.type, enabled=False):
            regions: Tensor = roi_align(
                x["0"].float(), boxes, REGION_SIZE, spatial_scale=1 / STRIDE, sampling_ratio=0, aligned=True
            )
        return regions
