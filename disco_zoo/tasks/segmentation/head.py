"""A linear head on a frozen backbone's maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from disco_zoo.networks.feature_maps import PYRAMID_STRIDES, FeatureMaps, map_strides
from disco_zoo.tasks.segmentation.settings import SegmentationSettings
from disco_zoo.transforms.eval import normalize

SIZE_STEP = 32  # of the input, in pixels: every backbone's coarsest stride divides it


class LinearSegmenter(nn.Module):
    """A BatchNorm without scales and a 1×1 convolution on the maps of a frozen backbone.

    The BatchNorm only standardises each channel, by statistics of the training images, so that one learning rate fits
    every backbone; with it the head is still linear.

    Args:
        backbone: headless timm model with its weights; layers above the last map go.
        mean, std: of its input, for RGB in 0..1.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        settings: SegmentationSettings,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        title: str = "the model",
    ) -> None:
        super().__init__()
        strides = _chosen(sorted(map_strides(backbone, title)), settings)
        self.maps = FeatureMaps(backbone, strides, title=title, frozen=True)
        channels = sum(self.maps.channels)
        self.head = nn.Sequential(nn.BatchNorm2d(channels, affine=False), nn.Conv2d(channels, num_classes, 1))
        nn.init.normal_(self.head[1].weight, std=0.01)  # type: ignore[arg-type]
        nn.init.zeros_(self.head[1].bias)  # type: ignore[arg-type]
        self.mean, self.std = tuple(mean), tuple(std)

    @property
    def device(self) -> torch.device:
        return next(self.head.parameters()).device

    def forward(self, images: Tensor) -> Tensor:
        """Scores (B, classes, H / s, W / s) of uint8 images (B, 3, H, W), s the finest stride that is used.

        H and W are multiples of 32.
        """
        with torch.no_grad():
            maps = self.maps(normalize(images, self.mean, self.std))
            size = maps[0].shape[-2:]
            joined = torch.cat([_to_size(one, size) for one in maps], dim=1)
        scores: Tensor = self.head(joined)
        return scores


def _to_size(one: Tensor, size: torch.Size) -> Tensor:
    if one.shape[-2:] == size:
        return one
    return F.interpolate(one, size=size, mode="bilinear", align_corners=False)


def _chosen(available: list[int], settings: SegmentationSettings) -> list[int]:
    if settings.maps == "last":
        return available[-1:]
    wanted = [stride for stride in available if stride in PYRAMID_STRIDES and stride >= settings.stride]
    return wanted or available[-1:]
