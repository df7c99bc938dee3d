"""Files for PyTorch: `torch.export` (.pt2), and a backbone under torchvision's names (.pth or .safetensors).

The tensors of our and of torchvision's network come in the same order: convolution, normalisation,
squeeze-and-excitation, as the papers draw them. So they are paired by order and shape, and the real torchvision
network proves it.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from disco_zoo.core.console import quiet
from disco_zoo.core.files import write_out
from disco_zoo.errors import CannotExport, first_line
from disco_zoo.exporting.subject import Subject, require_same

FACTS_FILE = "disco_zoo.json"


def write_torch(subject: Subject, path: Path, tolerance: float) -> float:
    """Write a `.pt2` with a free batch size and the subject's facts inside, compared before it gets its name.

    Returns:
        The largest difference from PyTorch, see `largest_difference`.

    Raises:
        CannotExport: torch.export cannot follow the network, or the file computes something else.
        CannotWrite: no room or no permission.
    """
    batch = torch.export.Dim("batch", min=1)
    try:
        with quiet():
            program = torch.export.export(subject.network, (subject.example(2),), dynamic_shapes=({0: batch},))
    except Exception as error:  # what it raises for a network that it cannot follow is nearly anything
        raise CannotExport(f"torch.export cannot follow {subject.named.name}: {first_line(error)}") from error
    buffer = io.BytesIO()  # torch warns of paths that do not end in .pt2, as the unfinished file's does
    torch.export.save(program, buffer, extra_files={FACTS_FILE: json.dumps(subject.facts())})
    buffer.seek(0)
    loaded = torch.export.load(buffer).module()
    found = require_same(subject, _features(loaded), tolerance, ".pt2")
    write_out(path, lambda partial: partial.write_bytes(buffer.getvalue()))
    return found


# timm's name -> torchvision's, and the module of its head that timm counts as features (MobileNetV3: 960 -> 1280).
NETWORKS: dict[str, str] = {
    "resnet18": "resnet18",
    "resnet34": "resnet34",
    "resnet50": "resnet50",
    "resnet101": "resnet101",
    "resnet152": "resnet152",
    "wide_resnet50_2": "wide_resnet50_2",
    "efficientnet_b0": "efficientnet_b0",
    "efficientnet_b1": "efficientnet_b1",
    "mobilenetv2_100": "mobilenet_v2",
    "mobilenetv3_large_100": "mobilenet_v3_large",
}


def write_torchvision(subject: Subject, native: str, path: Path, tolerance: float) -> float:
    """Write the state_dict of torchvision's network without its last layer, once that network gives our features.

    Args:
        native: timm's own name of the network.
        path: .safetensors, else what torch.save writes; both load strictly but for the last layer (`strict=False`).

    Returns:
        The largest difference from timm's features, see `largest_difference`.

    Raises:
        CannotExport: torchvision has no such network, or it computes something else, as with a head or a normalisation.
        CannotWrite: no room or no permission.
    """
    if subject.takes_pixels:
        raise CannotExport("torchvision's networks take normalised images. Leave out --normalise-inside")
    if subject.label_names is not None:
        raise CannotExport(
            f"{subject.named.name} is a classifier, and --keys torchvision is of features. Add --features"
        )
    if native not in NETWORKS:
        known = ", ".join(sorted(NETWORKS))
        raise CannotExport(f"torchvision has no network like {native}; it has those of {known}. Type: --format onnx")
    network = getattr(torchvision.models, NETWORKS[native])(weights=None).eval()
    last = _without_last_layer(network)
    tensors = _paired(subject, network)
    found = require_same(subject, _features(network), tolerance, "torchvision")
    assert not set(tensors) & set(last)

    def write(partial: Path) -> None:
        if path.suffix == ".safetensors":
            save_file(tensors, partial, metadata={"format": "pt", **subject.facts_as_text()})
        else:
            torch.save(tensors, partial)

    write_out(path, write)
    return found


def _features(network: nn.Module) -> Any:
    def run(images: Tensor) -> Tensor:
        with torch.no_grad():
            output: Tensor = network(images)
        return output

    return run


def _without_last_layer(network: Any) -> list[str]:
    """Take the layer of ImageNet's classes off in place; return the names of its tensors."""
    if hasattr(network, "fc"):
        network.fc = nn.Identity()
        return ["fc.weight", "fc.bias"]
    number = len(network.classifier) - 1
    network.classifier[number] = nn.Identity()
    return [f"classifier.{number}.weight", f"classifier.{number}.bias"]


def _paired(subject: Subject, network: nn.Module) -> dict[str, Tensor]:
    """Ours under torchvision's names; loads them into `network`."""
    ours, theirs = subject.named.backbone.state_dict(), network.state_dict()
    if len(ours) != len(theirs):
        raise CannotExport(
            f"{subject.named.name} has {len(ours)} tensors, torchvision's network {len(theirs)}: they do not correspond"
        )
    tensors: dict[str, Tensor] = {}
    for (key, tensor), (name, like) in zip(ours.items(), theirs.items(), strict=True):
        if tensor.numel() != like.numel() or tensor.squeeze().shape != like.squeeze().shape:
            raise CannotExport(f"{key} {tuple(tensor.shape)} does not fit torchvision's {name} {tuple(like.shape)}")
        tensors[name] = tensor.detach().reshape(like.shape).to(like.dtype).clone()
    _scale_for_epsilon(subject.named.backbone, network, tensors)
    network.load_state_dict(tensors, strict=True)
    return tensors


def _scale_for_epsilon(ours: nn.Module, theirs: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Where torchvision's BatchNorm has another epsilon, its weights make up for it exactly."""
    norms = [module for module in ours.modules() if isinstance(module, nn.BatchNorm2d)]
    named = [(name, module) for name, module in theirs.named_modules() if isinstance(module, nn.BatchNorm2d)]
    for our, (name, their) in zip(norms, named, strict=True):
        if our.eps != their.eps:
            variance = tensors[f"{name}.running_var"].double()
            factor = ((variance + their.eps) / (variance + our.eps)).sqrt()
            tensors[f"{name}.weight"] = (tensors[f"{name}.weight"].double() * factor).float()
