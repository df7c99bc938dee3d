"""An encoder: normalization, backbone, head. Students and teachers are encoders."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from disco_zoo.core.precision import at_least_float32
from disco_zoo.transforms.eval import normalize

LARGEST_CONTIGUOUS_SIZE = 64  # pixels
DENSE_SHARE = 0.75  # of a network's weights in convolutions over space and all channels: 0.98 in ResNet-18, 0.48 in -50


class Encoder(nn.Module):
    """Backbone and head behind their own input normalisation.

    Args:
        backbone: maps normalised images (B, 3, S, S) to pooled features (B, feature_dim).
        head: maps features to embeddings (B, D); `nn.Identity()` for none.
        image_size: S, the side in pixels this encoder looks at.
        mean, std: of the input, per channel, for images in [0, 1].

    Convolutions run channels-last unless `choose_memory_format` finds otherwise.
    """

    def __init__(
        self, backbone: nn.Module, head: nn.Module, *, image_size: int, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.backbone, self.head, self.image_size = backbone, head, image_size
        self.mean, self.std = tuple(mean), tuple(std)
        self.to(memory_format=torch.channels_last)

    def features(self, views: Tensor, size: int | None = None) -> Tensor:
        """Pooled backbone features (B, feature_dim) of uint8 views (B, 3, S', S'), seen at side `size`, default S."""
        return self.backbone(normalize(resized(views, size or self.image_size), self.mean, self.std))

    def forward(self, views: Tensor, size: int | None = None) -> Tensor:
        """L2-normalised embeddings (B, D) of uint8 views (B, 3, S', S'), seen at side `size`, default S."""
        return self.embeddings(self.features(views, size))

    def embeddings(self, features: Tensor) -> Tensor:
        """L2-normalised embeddings (B, D) of the backbone's features (B, feature_dim)."""
        return F.normalize(at_least_float32(self.head(features)), dim=1)


def choose_memory_format(encoder: Encoder, device: torch.device | str) -> None:
    """Lay an encoder out in memory as is faster on its device."""
    if not channels_last_pays(encoder.backbone, encoder.image_size, device):
        encoder.to(memory_format=torch.contiguous_format)


def channels_last_pays(backbone: nn.Module, image_size: int, device: torch.device | str = "cpu") -> bool:
    """Whether a network is faster channels-last at this side in pixels: measured, `benchmarks/channels_last.py`.

    Always, except on CPUs for images of up to 64 pixels in networks made of 3×3 convolutions (ResNet-18 and -34). A
    ResNet-50 at 32 pixels is the exception left alone: it loses some 6 %, where it gains at 64.
    """
    if torch.device(device).type != "cpu" or image_size > LARGEST_CONTIGUOUS_SIZE:
        return True
    convolutions = [module for module in backbone.modules() if isinstance(module, nn.Conv2d)]
    dense = sum(c.weight.numel() for c in convolutions if c.groups == 1 and c.kernel_size != (1, 1))
    return dense < DENSE_SHARE * sum(parameter.numel() for parameter in backbone.parameters())


def feature_dim_of(backbone: nn.Module) -> int:
    """Width of a headless timm backbone's output; MobileNetV3's `num_features` is not it, hence `head_hidden_size`."""
    width: int = getattr(backbone, "head_hidden_size", None) or backbone.num_features  # type: ignore[assignment]
    return width


def resized(views: Tensor, size: int) -> Tensor:
    """Bring views (B, 3, S', S') to side `size`.

    Teacher and student may look at one view at different sizes: it is drawn at the larger one and reduced here,
    with antialiasing.
    """
    if views.shape[-1] == size:
        return views
    return F.interpolate(views.float(), size=(size, size), mode="bilinear", antialias=True, align_corners=False)
