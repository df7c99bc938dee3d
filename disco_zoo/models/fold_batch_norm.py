"""BatchNorm folded into the convolution or linear layer in front of it: the same frozen network for less work.

In eval mode y = γ·(Wx + b − μ)/√(σ² + ε) + β is one layer with other weights. What precedes what is seen in a traced
forward, not guessed from names; and the result is compared with the original before anyone relies on it.
"""

from __future__ import annotations

import copy
import itertools
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from disco_zoo.models.encoder import Encoder

TOLERANCE = 1e-4  # of the folded outputs, relative to the root mean square of the original ones
TRACED_IMAGES = 4


class FoldedPair(NamedTuple):
    """Names of a layer and of the BatchNorm that takes its output, and nothing else's."""

    layer: str
    norm: str


def fold_batch_norm(encoder: Encoder) -> Encoder:
    """A copy of a frozen encoder with every possible BatchNorm folded, or the encoder itself where that is no gain.

    The copy shares all tensors but the weights of the folded layers. It is returned only if its outputs on a fixed
    batch of noise are those of the original, up to `TOLERANCE`.

    Args:
        encoder: in eval mode, with its final weights. It stays as it is.
    """
    if not any(isinstance(module, _BatchNorm) for module in encoder.modules()):
        return encoder
    views = _noise(encoder)
    with torch.no_grad(), torch.autocast(views.device.type, enabled=False):
        pairs, expected = _traced(encoder, views)
        if not pairs:
            return encoder
        shared = {id(tensor): tensor for tensor in itertools.chain(encoder.parameters(), encoder.buffers())}
        folded = copy.deepcopy(encoder, shared)
        for pair in pairs:
            _fold(folded, pair)
        found = _outputs(folded, views)
    scale = expected.square().mean().sqrt()
    # A NaN on either side is not "equal".
    same = bool(((found - expected).abs().max() <= TOLERANCE * scale).item())
    return folded.requires_grad_(False) if same else encoder


def _traced(encoder: Encoder, views: Tensor) -> tuple[list[FoldedPair], Tensor]:
    """The pairs that one forward of uint8 views (b, 3, S, S) shows, and what came out of it."""
    # The tensors are kept, or another one could take an identity; their versions show what was changed in place.
    outputs: list[tuple[str, Tensor, int]] = []
    calls: list[tuple[str, str | None]] = []

    def after_layer(name: str) -> Any:
        return lambda module, inputs, output: outputs.append((name, output, output._version))

    def before_norm(name: str) -> Any:
        def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen = inputs[0]
            found = (layer for layer, output, version in outputs if output is seen and seen._version == version)
            calls.append((name, next(found, None)))

        return note

    handles = []
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            handles.append(module.register_forward_hook(after_layer(name)))
        elif isinstance(module, _BatchNorm) and module.running_mean is not None:
            handles.append(module.register_forward_pre_hook(before_norm(name)))
    try:
        result = _outputs(encoder, views)
    finally:
        for handle in handles:
            handle.remove()
    layers, norms = [layer for layer, *_ in outputs], [norm for norm, _ in calls]
    once = [(norm, layer) for norm, layer in calls if norms.count(norm) == 1 and layers.count(layer or "") == 1]
    return [FoldedPair(layer, norm) for norm, layer in once if layer is not None], result


def _fold(encoder: Encoder, pair: FoldedPair) -> None:
    """Give the layer other weights, in fp64 on the way, and leave of the norm what timm put into it besides."""
    layer: Any = encoder.get_submodule(pair.layer)
    norm: Any = encoder.get_submodule(pair.norm)
    weight, bias = layer.weight, layer.bias
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    if bias is not None:
        shift = shift + bias.double() * scale
    column = scale.view(-1, *[1] * (weight.ndim - 1))
    # Elementwise, so that a channels-last weight stays one.
    layer.weight = nn.Parameter((weight.double() * column).to(weight.dtype), requires_grad=False)
    layer.bias = nn.Parameter(shift.to(weight.dtype), requires_grad=False)
    besides = [part for name in ("drop", "act") if isinstance(part := getattr(norm, name, None), nn.Module)]
    encoder.set_submodule(pair.norm, nn.Sequential(*besides).eval())


def _outputs(encoder: Encoder, views: Tensor) -> Tensor:
    return encoder.head(encoder.features(views))


def _noise(encoder: Encoder) -> Tensor:
    """The same uint8 images in every process and after every resume; no one's random state moves."""
    device = next(encoder.parameters()).device
    generator = torch.Generator().manual_seed(0)
    shape = (TRACED_IMAGES, 3, encoder.image_size, encoder.image_size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).to(device)
