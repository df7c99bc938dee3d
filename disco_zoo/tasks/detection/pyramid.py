"""Feature pyramids for detection: FPN over four maps, or four maps made from the only one of a plain transformer."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from disco_zoo.networks.feature_maps import PYRAMID_STRIDES, FeatureMaps, map_strides

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
