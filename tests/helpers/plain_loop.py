"""A training loop written a second time, for methods whose loss a test writes from its formula.

Nothing of the package runs here but the layers of the networks.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from reference_loop import embed, sgd_step
from tiny import MEAN, STD
from torch import Tensor, nn

Loss = Callable[[nn.ModuleList, list[Tensor]], Tensor]


class _Double(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.double()


def in_float64(method: Any) -> Any:
    """The method, its student and its teacher in float64 from the normalised images on.

    Two correct loops in float32 drift apart by rounding, and how far depends on the processor's kernels. In float64 a
    comparison to 1e-9 leaves no room for either.
    """
    encoders = [method.student]
    encoders += [method.teacher.encoder] if method.teacher is not None else []
    encoders += [method.contrast.twin] if hasattr(method, "contrast") else []
    encoders += [method.twin.encoder] if getattr(method, "twin", None) is not None else []
    for encoder in encoders:
        encoder.backbone = nn.Sequential(_Double(), encoder.backbone).train(encoder.backbone.training)
        encoder.double()
    return method.double()


def plain_loop(parts: Iterable[nn.Module], batches: list[list[Tensor]], loss_of: Loss) -> tuple[list[float], nn.Module]:
    """Train copies of `parts` (backbone, head, ...) by SGD; `loss_of` maps these copies and views to the loss."""
    query = nn.ModuleList([copy.deepcopy(part) for part in parts]).train()
    velocities = [torch.zeros_like(parameter) for parameter in query.parameters()]
    losses = []
    for views in batches:
        loss = loss_of(query, views)
        losses.append(loss.item())
        sgd_step(query, loss, velocities)
    return losses, query


def raw(backbone: nn.Module, head: nn.Module, view: Tensor, mean=MEAN, std=STD) -> Tensor:
    """Outputs of the head without L2 normalisation."""
    pixels = view.float() / 255
    channels = [(pixels[:, c] - mean[c]) / std[c] for c in range(3)]
    return head(backbone(torch.stack(channels, dim=1)))


@torch.no_grad()
def taught(teacher: nn.Module, view: Tensor, *, unit: bool) -> Tensor:
    """Targets of a teacher's encoder for a view."""
    rows = embed if unit else raw
    return rows(teacher.backbone, teacher.head, view, teacher.mean, teacher.std)


def same_weights(mine: Iterable[nn.Module], theirs: nn.Module, atol: float = 1e-5) -> bool:
    own = [parameter for part in mine for parameter in part.parameters()]
    return all(torch.allclose(a, b, atol=atol) for a, b in zip(own, theirs.parameters(), strict=True))
