"""Images brought to the detector's size without aliasing: photos are ten times as large, and torchvision skips pixels.

Backbones are trained on Pillow's smooth resizing, and detectron2 resizes with Pillow, too.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes


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
