"""Maps in place of pooled features: what detection and segmentation see of a headless backbone.

timm's `features_only` in its getter form (`forward_intermediates`), put around the backbone that is loaded already. So
every tensor of the backbone is the one that was loaded; what lies above the last map (a final convolution) is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from timm.models._features import FeatureGetterNet  # the public `timm.models.features` warns
from torch import Tensor, nn

from disco_zoo.errors import DiscoZooError

PYRAMID_STRIDES = (4, 8, 16, 32)


class FeatureMaps(nn.Module):
    """Feature maps of a backbone, from fine to coarse.

    Args:
        backbone: headless timm model; it is changed: layers above the last map go.
        strides: wanted steps between map positions, in pixels, which the backbone must have.
        frozen: no gradient, and always in eval mode.
        freeze_batch_norm: BatchNorm's running statistics stay as they are; its scales still learn.

    Attributes:
        strides: of the maps, in pixels.
        channels: of the maps.

    Raises:
        DiscoZooError: the backbone has no such maps.
    """

    def __init__(
        self,
        backbone: nn.Module,
        strides: Sequence[int],
        *,
        title: str,
        frozen: bool = False,
        freeze_batch_norm: bool = False,
    ) -> None:
        super().__init__()
        available = map_strides(backbone, title)
        lacking = [stride for stride in strides if stride not in available]
        if lacking:
            raise DiscoZooError(f"{title} has no feature maps of stride {lacking}, only of {sorted(available)}.")
        # A plain transformer's maps are its last tokens behind the final norm; a pyramid's are taken as they are.
        self.getter = FeatureGetterNet(backbone, [available[stride] for stride in strides], norm=len(available) == 1)
        self.strides: tuple[int, ...] = tuple(strides)
        self.channels: tuple[int, ...] = tuple(self.getter.feature_info.channels())
        self.frozen, self.freeze_batch_norm = frozen, freeze_batch_norm
        if frozen:
            self.requires_grad_(False)
        self.train(self.training)
        self._try(title)

    def train(self, mode: bool = True) -> FeatureMaps:
        super().train(mode and not self.frozen)
        if self.freeze_batch_norm:
            keep_statistics(self)
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps (B, channels[i], H / strides[i], W / strides[i]) of normalised images (B, 3, H, W)."""
        if images.device.type == "cpu":
            images = images.contiguous(memory_format=torch.channels_last)  # faster convolutions
        maps: list[Tensor] = self.getter(images)
        return maps

    @torch.no_grad()
    def _try(self, title: str) -> None:
        """Look at one image that is not square: some transformers take their own size alone."""
        former, height, width = self.training, 96, 128
        try:
            maps = self.eval()(torch.zeros(1, 3, height, width))
        except (AssertionError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:150]
            raise DiscoZooError(f"{title} cannot look at images of any size and shape ({reason}).") from error
        finally:
            self.train(former)
        for stride, found in zip(self.strides, maps, strict=True):
            if found.shape[-2:] != (height // stride, width // stride):
                raise DiscoZooError(f"{title} gives {tuple(found.shape)} where a map of stride {stride} should be.")


def keep_statistics(network: nn.Module) -> None:
    """Put each BatchNorm into eval mode, until the network's mode changes."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def map_strides(backbone: Any, title: str) -> dict[int, int]:
    """Stride in pixels -> number of the last of the backbone's maps with that stride.

    Raises:
        DiscoZooError: timm cannot give feature maps of this model.
    """
    info = getattr(backbone, "feature_info", None)
    if info is None or not hasattr(backbone, "forward_intermediates"):
        raise DiscoZooError(f"timm gives no feature maps of {title}. Choose a model of: disco-zoo list")
    rows = info if isinstance(info, list) else info.info
    return {int(row["reduction"]): number for number, row in enumerate(rows)}
