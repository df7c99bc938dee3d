"""A backbone that stays frozen: eval mode without gradients, its features checked, the proof that nothing changed."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from disco_zoo.errors import DiscoZooError


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
