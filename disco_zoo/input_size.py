"""timm networks at other input sizes than their own: vision transformers have a fixed one unless told otherwise."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import nn

from disco_zoo.errors import BadTeacher


def create_for_any_size(name: str, **options: Any) -> Any:
    """`timm.create_model`, with position embeddings that follow each input's size where the network can do that.

    At its own size, and in its tensors' names and shapes, the network is the same.
    """
    try:
        return timm.create_model(name, dynamic_img_size=True, **options)
    except TypeError:  # convolutional networks, and transformers without this option
        return timm.create_model(name, **options)


def fit_input_size(network: nn.Module, size: int, title: str) -> None:
    """Make a network ready for images of `size` pixels, after its weights are loaded; one image is tried.

    Raises:
        BadTeacher: it cannot look at images of this size.
    """
    fault = _fault(network, size)
    if fault is not None and hasattr(network, "set_input_size"):
        fault = _fault(network, size, resize=True)
    if fault is not None:
        better = _near(network, size)
        raise BadTeacher(f"{title} cannot look at {size} pixels ({fault}). Type: --set teacher.image_size={better}")


@torch.no_grad()
def _fault(network: Any, size: int, resize: bool = False) -> str | None:
    """What the network says to a black image of this size; BatchNorm's statistics stay as they are."""
    device = next((parameter.device for parameter in network.parameters()), None)
    training = network.training
    try:
        if resize:
            network.set_input_size(img_size=(size, size))
        network.eval()(torch.zeros(1, 3, size, size, device=device))
    except (AssertionError, RuntimeError, ValueError) as error:
        return " ".join(str(error).split())[:120] or type(error).__name__
    finally:
        network.train(training)
    return None


def _near(network: Any, size: int) -> int:
    """The nearest multiple of the patch size, where there are patches; else the network's own size."""
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    patch = patch[0] if isinstance(patch, tuple) else patch
    if patch and size % patch:
        return int(max(1, round(size / patch)) * patch)
    return int(network.pretrained_cfg["input_size"][-1])
