"""timm networks at other input sizes than their own, and the memory of an image's forward pass at a size.

Vision transformers have a fixed size unless told otherwise.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn

from disco_zoo.core.console import say_once
from disco_zoo.core.process import available_bytes
from disco_zoo.errors import BadRecipe, BadTeacher, DiscoZooError

USUAL_PIXELS = 512  # up to this side nobody needs an estimate
GIB = 2**30


def require_memory(network: nn.Module, size: int, title: str, option: str, images: int = 1) -> None:
    """Refuse an input size whose activations do not fit into this machine's memory, before they are computed.

    Args:
        size: side of the input in pixels.
        option: what the user would type before another size.
        images: of a batch.

    Raises:
        DiscoZooError: they do not; the message names a size or a batch that does.
    """
    free = available_bytes()
    if size <= USUAL_PIXELS or free is None:
        return
    needed = activation_bytes(network, size)
    if needed is None or needed * images <= free:
        return
    many = f"{images} image{'s' * (images > 1)}"
    if images > 1 and needed <= free:
        option, better = "--batch-size ", free // needed
    else:
        better = max(32, int(size * (free / (needed * images)) ** 0.5) // 32 * 32)  # it grows with the area, or faster
    raise DiscoZooError(
        f"{title} at {size} pixels needs about {needed * images / GIB:.1f} GiB for {many} and {free / GIB:.1f} GiB are "
        f"free. Type: {option}{better}"
    )


def activation_bytes(network: nn.Module, size: int) -> int | None:
    """Of the layer that holds most at once, input and output, for one image in float32; None where shapes do not tell.

    The networks run without gradients: what lies behind a layer is freed. Branches that wait for others are not
    counted, so a network may need somewhat more.
    """
    try:
        shapes = copy.deepcopy(network).to("meta").eval()
    except Exception:  # networks that are no PyTorch parameters, such as ONNX sessions
        return None
    most = [0]

    def note(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        tensors = [value for value in (*inputs, output) if isinstance(value, Tensor)]
        most[0] = max(most[0], 4 * sum(value.numel() for value in tensors))

    for module in shapes.modules():
        if not [*module.children()]:
            module.register_forward_hook(note)
    try:
        with torch.no_grad():
            shapes(torch.empty(1, 3, size, size, device="meta"))
    except Exception:  # it cannot look at this size, which the caller finds out, or asks for values
        return None
    return most[0] or None


@dataclass(frozen=True)
class SizedNetwork:
    """A network, and the side in pixels at which it sees small crops that are drawn at `drawn` pixels."""

    title: str
    network: nn.Module
    image_size: int
    view_size: int

    def at(self, drawn: int) -> int:
        """In the same proportion to its own input size as the small crops are to the views."""
        return round(drawn * self.image_size / self.view_size)


def create_for_any_size(name: str, **options: Any) -> Any:
    """`timm.create_model`, with position embeddings that follow each input's size where the network can do that.

    At its own size, and in its tensors' names, shapes and first values, the network is the same.
    """
    random_state = torch.get_rng_state()
    try:
        return timm.create_model(name, **{"dynamic_img_size": True, **options})
    except TypeError:  # convolutional networks, and transformers without this option
        torch.set_rng_state(random_state)
        return timm.create_model(name, **options)


def fit_input_size(network: nn.Module, size: int, title: str, option: str = "--set teacher.image_size=") -> None:
    """Make a network ready for images of `size` pixels, after its weights are loaded; one image is tried.

    Args:
        option: what the user would type before another size.

    Raises:
        BadTeacher: it cannot look at images of this size.
        DiscoZooError: there is no memory for one image of this size.
    """
    require_memory(network, size, title, option)
    own = _own_size(network)
    if own not in (None, size):
        say_once(
            f"{title} looks at {size} px, not at its own {own}: its position embeddings are resampled as timm does, "
            "which is not every author's way (docs/spec.md, section 8)"
        )
    fault = _fault(network, size)
    if fault is not None and hasattr(network, "set_input_size"):
        fault = _fault(network, size, resize=True)
    if fault is not None:
        better = _near(network, size)
        raise BadTeacher(f"{title} cannot look at {size} pixels ({fault}). Type: {option}{better}")


def _own_size(network: Any) -> int | None:
    """Side in pixels of the images whose patches a transformer has position embeddings of; None for other networks."""
    size = getattr(getattr(network, "patch_embed", None), "img_size", None)
    has_table = getattr(network, "pos_embed", None) is not None and getattr(network, "dynamic_img_size", False)
    return int(size[0]) if has_table and size else None


def require_input_size(network: nn.Module, size: int, title: str) -> None:
    """Refuse a student that cannot process images of `size` pixels; one image is tried.

    Its tensors keep the shapes of its architecture, or its file would load nowhere else: networks that timm can fit
    to a size only by reshaping them are refused, too.

    Raises:
        BadRecipe: it cannot.
    """
    fault = _fault(network, size)
    if fault is not None:
        better = _near(network, size)
        raise BadRecipe(f"{title} cannot look at {size} pixels ({fault}). Type: --set student.image_size={better}")


def require_small_size(drawn: int, networks: Sequence[SizedNetwork]) -> None:
    """Refuse small crops, drawn at `drawn` pixels, that one of the networks cannot process; one image each is tried.

    Raises:
        BadRecipe: one cannot; the message names the nearest size that suits all.
    """
    faults = [(looks, _fault(looks.network, looks.at(drawn))) for looks in networks]
    bad = next(((looks, fault) for looks, fault in faults if fault is not None), None)
    if bad is None:
        return
    looks, fault = bad
    better = _near_small(drawn, sorted(networks, key=lambda other: other is not looks))  # the first to refuse first
    hint = "--set views.small_views=0" if better is None else f"--set views.small_size={better}"
    raise BadRecipe(f"{looks.title} cannot look at small crops of {looks.at(drawn)} pixels ({fault}). Type: {hint}")


def _near_small(drawn: int, networks: Sequence[SizedNetwork]) -> int | None:
    """The nearest size of small crops that all networks can process; None without any."""
    largest = max(looks.view_size for looks in networks)
    for size in sorted(range(1, largest), key=lambda size: abs(size - drawn)):
        sides = [(looks, looks.at(size)) for looks in networks]
        if all(1 <= side < looks.image_size and _fits_patches(looks.network, side) for looks, side in sides) and all(
            _fault(looks.network, side) is None for looks, side in sides
        ):
            return size
    return None


@torch.no_grad()
def _fault(network: Any, size: int, resize: bool = False) -> str | None:
    """The network's error for a black image of this size; BatchNorm's statistics stay as they are."""
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
    """The nearest multiple of the patch size, where the network can look at that; else its own size."""
    patch = _patch(network)
    if patch and size % patch:
        near = max(1, round(size / patch)) * patch
        if _fault(network, near) is None or hasattr(network, "set_input_size"):
            return near
    return int(network.pretrained_cfg["input_size"][-1])


def _patch(network: Any) -> int | None:
    """Side of a patch in pixels, where there are patches."""
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    return patch[0] if isinstance(patch, tuple) else patch


def _fits_patches(network: Any, size: int) -> bool:
    """False spares a try; networks that convolve their way to patches look at any size."""
    patch = _patch(network) if getattr(network, "dynamic_img_size", False) else None
    return patch is None or size % patch == 0
