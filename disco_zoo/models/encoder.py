"""An encoder: normalization, backbone, head. Students and teachers are encoders.

A frozen backbone is in eval mode without gradients; its features are checked, and its fingerprint proves that nothing
changed.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from disco_zoo.errors import DiscoZooError
from disco_zoo.modules.similarity import at_least_float32
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

    Convolutions run channels-last, unless `choose_memory_format` finds otherwise for a teacher.
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
    """Lay a frozen encoder out in memory as is faster on its device."""
    if not channels_last_pays(encoder.backbone, encoder.image_size, device):
        encoder.to(memory_format=torch.contiguous_format)


def channels_last_pays(backbone: nn.Module, image_size: int, device: torch.device | str = "cpu") -> bool:
    """Whether a frozen network is faster channels-last at this side in pixels: `benchmarks/channels_last.py --frozen`.

    Always, except on CPUs for images of up to 64 pixels in networks made of 3×3 convolutions (ResNet-18 and -34).
    Students train channels-last, since their small maps are multiplied (`networks/cpu_convolutions.py`).
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


@contextlib.contextmanager
def frozen(backbone: nn.Module, device: torch.device | str) -> Iterator[None]:
    """Put the backbone on `device` in eval mode without gradients; restore each module's mode and the device.

    Each module has its own mode on purpose: a frozen BatchNorm may be in eval inside a model in train mode.
    """
    modes = [(module, module.training) for module in backbone.modules()]
    former_device = next((parameter.device for parameter in backbone.parameters()), torch.device(device))
    try:
        backbone.to(device).eval()
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
        backbone.to(former_device)


def backbone_fingerprint(module: nn.Module) -> str:
    """Sha256 over name, type, shape and bytes of every parameter and buffer, BatchNorm statistics included.

    Equal fingerprints before and after a probe prove that the probe did not change the backbone.
    """
    digest = hashlib.sha256()
    named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    for name, tensor in sorted(named, key=lambda item: item[0]):
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def pooled(backbone: nn.Module, images: Tensor) -> Tensor:
    """Features float32 (B, D) of normalised images (B, 3, S, S), checked.

    Raises:
        DiscoZooError: the output is not (B, D), or not finite.
    """
    features = backbone(images)
    if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(images):
        shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise DiscoZooError(f"The backbone gives {shape}, not one vector an image. Create it with num_classes=0.")
    if not torch.isfinite(features).all():
        raise DiscoZooError("The backbone's features are not finite: its weights are damaged or have diverged.")
    return features.float()
