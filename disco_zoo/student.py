"""The student: a zoo backbone with a projection head, from random weights, a checkpoint or its teacher's tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from disco_zoo.encoder import Encoder, feature_dim_of
from disco_zoo.errors import BadRecipe, UnknownName, did_you_mean
from disco_zoo.modules import projection_head

# sigmoid(4) = 0.98: a gate the teacher does not have starts (almost) as the identity, yet with a gradient.
OPEN_GATE_BIAS = 4.0


@dataclass(frozen=True)
class Inheritance:
    """What `inherit_weights` did: tensors copied, and all the student has."""

    copied: int
    total: int


def create_backbone(model: str) -> nn.Module:
    """A headless zoo or timm backbone with random weights.

    Raises:
        UnknownName: timm does not know the model.
    """
    import disco_zoo.disco_students  # noqa: F401  registers the zoo's names

    if not timm.is_model(model):
        raise UnknownName(f"student.model '{model}' is unknown to timm.{did_you_mean(model, timm.list_models())}")
    return timm.create_model(model, num_classes=0)


def build_student(
    backbone: nn.Module,
    *,
    embed_dim: int,
    head: str,
    head_hidden_dim: int | None,
    image_size: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> Encoder:
    """Put a head on a backbone.

    Args:
        embed_dim: D, the teacher's width where there is a teacher.
        head: "mlp" (Linear, ReLU, Linear), "linear", or "none" (features are the embedding; widths must agree).
        head_hidden_dim: hidden width of "mlp"; None takes the feature width, MoCo-v2's rule.
    """
    width = feature_dim_of(backbone)
    if head == "none":
        if width != embed_dim:
            raise BadRecipe(
                f"student.head: none needs features of the teacher's width {embed_dim}, this student has {width}. "
                "Type: --set student.head=mlp"
            )
        projection: nn.Module = nn.Identity()
    else:
        projection = projection_head(width, (head_hidden_dim or width) if head == "mlp" else None, embed_dim)
    return Encoder(backbone, projection, image_size=image_size, mean=mean, std=std)


@torch.no_grad()
def inherit_weights(student: nn.Module, teacher: nn.Module) -> Inheritance:
    """Copy every tensor whose name and shape match; open the squeeze-and-excitation gates that have no counterpart.

    EfficientNet-Lite0 and B0 share 294 of B0's 358 tensors. BatchNorm statistics no longer fit afterwards:
    call `recalibrate_batch_norm` next.
    """
    own, theirs = student.state_dict(), teacher.state_dict()
    shared = [key for key, value in own.items() if key in theirs and theirs[key].shape == value.shape]
    if not any(key.endswith("weight") for key in shared):
        raise BadRecipe(
            "student.init: inherit found no tensor in common with its source. Type: --set student.init=random"
        )
    for key in shared:
        own[key].copy_(theirs[key])
    for name, module in student.named_modules():
        gate = getattr(module, "conv_expand", None)
        if isinstance(gate, nn.Conv2d) and f"{name}.conv_expand.weight" not in shared:
            nn.init.zeros_(gate.weight)
            nn.init.constant_(gate.bias, OPEN_GATE_BIAS)  # type: ignore[arg-type]
    return Inheritance(len(shared), len(own))


@torch.no_grad()
def recalibrate_batch_norm(student: Encoder, batches: Iterator[Tensor]) -> None:
    """Set BatchNorm's running statistics to their plain average over batches of uint8 images (B, 3, S, S)."""
    norms = [module for module in student.backbone.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    was_training = student.training
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    student.train()
    for images in batches:
        student.features(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    student.train(was_training)


def load_backbone(backbone: nn.Module, path: Path) -> None:
    """Load a safetensors file of backbone tensors, strictly.

    Raises:
        BadRecipe: the file is missing or does not fit.
    """
    try:
        backbone.load_state_dict(load_file(path), strict=True)
    except FileNotFoundError as error:
        raise BadRecipe(f"student.init_from: {path} does not exist") from error
    except Exception as error:  # safetensors and torch raise their own kinds; all mean: this file does not fit
        raise BadRecipe(f"student.init_from: {path} does not fit: {' '.join(str(error).split())[:300]}") from error
