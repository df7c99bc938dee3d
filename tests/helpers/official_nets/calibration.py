"""Random weights whose signal neither dies nor explodes, and images to look at."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def random_images(count: int, size: int, seed: int = 0) -> Tensor:
    """Images (count, 3, size, size) of unit variance, with coarse structure as photographs have."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 8, 8, generator=generator)
    fine = torch.randn(count, 3, size, size, generator=generator)
    images = F.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=False) + 0.5 * fine
    return (images - images.mean()) / images.std()


@torch.no_grad()
def randomise(model: nn.Module, *, seed: int = 0, sizes: tuple[int, ...] = (224, 96)) -> nn.Module:
    """Draw He weights and uneven affine parameters, then set BatchNorm's statistics to those of random images.

    Statistics of one size alone let the signal grow a thousandfold at another, layer by layer.
    """
    torch.manual_seed(seed)
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.2)
        elif isinstance(module, (nn.LayerNorm, nn.modules.batchnorm._BatchNorm)):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    own = {id(p) for m in model.modules() if not list(m.children()) for p in m.parameters()}
    for name, parameter in model.named_parameters():  # class token, positions, scales and temperatures
        if id(parameter) not in own:
            nn.init.uniform_(parameter, 0.5, 1.0) if "gamma" in name or "temperature" in name else parameter.normal_()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over what follows
    model.train()
    for size in sizes:
        model(random_images(8, size, seed + 1))
    return model.eval()
