"""Tensor names of the authors' networks, and how they become timm's (spec 7.2, 7.4, 7.5)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from disco_zoo.errors import BadCheckpoint
from disco_zoo.networks.variants import listed

Tensors = dict[str, Tensor]
# Blocks a stage, timm's way of counting them.
B0_STAGES = (1, 2, 2, 3, 3, 4, 1)
B1_STAGES = (2, 3, 3, 4, 4, 5, 2)
MOBILENETV3_STAGES = (1, 2, 3, 4, 2, 3)
MOBILENETV2_STAGES = (1, 2, 3, 4, 3, 3, 1)


@dataclass(frozen=True)
class Naming:
    """How a family of networks names its tensors.

    Attributes:
        title: whose names they are.
        signs: beginnings of names; a network that has one of them uses this naming.
        heads: beginnings of what sits on top of the backbone: the self-supervised head, or a classifier.
        to_timm: renames the backbone's tensors.
        classifiers: beginnings of what is always a classifier.
    """

    title: str
    signs: tuple[str, ...]
    heads: tuple[str, ...]
    to_timm: Callable[[Tensors, str], Tensors]
    classifiers: tuple[str, ...] = ()


def naming_of(keys: Iterable[str]) -> Naming | None:
    """The naming that these tensor names follow, None if none does."""
    keys = tuple(keys)
    return next((naming for naming in NAMINGS if any(key.startswith(naming.signs) for key in keys)), None)


def stage_block(index: int, stages: tuple[int, ...]) -> str | None:
    """`S.R` of the block that is number `index` over all stages; None beyond the last."""
    for stage, blocks in enumerate(stages):
        if index < blocks:
            return f"{stage}.{index}"
        index -= blocks
    return None


def _as_they_are(tensors: Tensors, origin: str) -> Tensors:
    return tensors


def _renamed(tensors: Mapping[str, Tensor], timm_name: Callable[[str], str | None], title: str, origin: str) -> Tensors:
    """Rename every tensor; names that the naming does not have are an error, and so are two that become one."""
    renamed: Tensors = {}
    unknown = []
    for key, value in tensors.items():
        name = timm_name(key)
        if name is None or name in renamed:
            unknown.append(key)
        else:
            renamed[name] = value
    if unknown:
        raise BadCheckpoint(f"{origin}: {title} has no {listed(unknown)}")
    return renamed


def _efficientnet_pytorch(tensors: Tensors, origin: str) -> Tensors:
    numbers = {int(found[1]) for key in tensors if (found := re.match(r"_blocks\.(\d+)\.", key))}
    stages = {sum(s): s for s in (B0_STAGES, B1_STAGES)}.get(len(numbers))
    if stages is None:
        raise BadCheckpoint(f"{origin}: {len(numbers)} EfficientNet blocks; B0 has 16, B1 has 23, others are not known")
    return efficientnet_tensors(tensors, stages, origin)


def efficientnet_tensors(tensors: Mapping[str, Tensor], stages: tuple[int, ...], origin: str) -> Tensors:
    """Tensors of efficientnet_pytorch under timm's names, a classifier's too.

    Args:
        stages: blocks a stage.
        origin: the file, for messages.

    Raises:
        BadCheckpoint: an EfficientNet of these stages does not have all of them.
    """
    top = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    parts = {
        "_expand_conv": "conv_pw",
        "_bn0": "bn1",
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn2",
        "_se_reduce": "se.conv_reduce",
        "_se_expand": "se.conv_expand",
        "_project_conv": "conv_pwl",
        "_bn2": "bn3",
    }
    # The blocks of stage 0 do not expand.
    first = {**parts, "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2", "_expand_conv": "", "_bn0": ""}

    def timm_name(key: str) -> str | None:
        if not (found := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)):
            module, _, leaf = key.partition(".")
            return f"{top[module]}.{leaf}" if module in top else None
        block = stage_block(int(found[1]), stages)
        part = (first if (block or "").startswith("0.") else parts).get(found[2])
        return f"blocks.{block}.{part}.{found[3]}" if block and part else None

    return _renamed(tensors, timm_name, "efficientnet_pytorch", origin)


def _torchvisions_names(
    top: Mapping[str, str], first: Mapping[str, str], parts: Mapping[str, str], stages: tuple[int, ...]
) -> Callable[[str], str | None]:
    """timm's names for torchvision's layout of MobileNets; `first`: parts of the block that does not expand."""

    def timm_name(key: str) -> str | None:
        module, _, leaf = key.rpartition(".")
        if module in top:
            return f"{top[module]}.{leaf}"
        found = re.fullmatch(r"features\.(\d+)\.conv\.([\w.]+)", module)
        block = stage_block(int(found[1]) - 1, stages) if found and found[1] != "0" else None
        if not found or block is None:
            return None
        part = (first if block == "0.0" else parts).get(found[2])
        return f"blocks.{block}.{part}.{leaf}" if part else None

    return timm_name


def _seed_mobilenetv3(tensors: Tensors, origin: str) -> Tensors:
    top = {
        "features.0.0": "conv_stem",
        "features.0.1": "bn1",
        "conv.0": "blocks.6.0.conv",
        "conv.1": "blocks.6.0.bn1",
        "classifier.0": "conv_head",
    }
    first = {"0": "conv_dw", "1": "bn1", "4": "conv_pw", "5": "bn2"}
    parts = {
        "0": "conv_pw",
        "1": "bn1",
        "3": "conv_dw",
        "4": "bn2",
        "7": "conv_pwl",
        "8": "bn3",
        "5.fc.0": "se.conv_reduce",
        "5.fc.2": "se.conv_expand",
    }
    timm_name = _torchvisions_names(top, first, parts, MOBILENETV3_STAGES)
    renamed = _renamed(tensors, timm_name, "SEED's MobileNetV3", origin)
    # Its gates and last layer are Linear; timm's are convolutions of 1×1.
    linear = ("se.conv_reduce.weight", "se.conv_expand.weight", "conv_head.weight")
    return {k: v[:, :, None, None] if k.endswith(linear) and v.dim() == 2 else v for k, v in renamed.items()}


def _torchvision_mobilenetv2(tensors: Tensors, origin: str) -> Tensors:
    top = {"features.0.0": "conv_stem", "features.0.1": "bn1", "features.18.0": "conv_head", "features.18.1": "bn2"}
    first = {"0.0": "conv_dw", "0.1": "bn1", "1": "conv_pw", "2": "bn2"}
    parts = {"0.0": "conv_pw", "0.1": "bn1", "1.0": "conv_dw", "1.1": "bn2", "2": "conv_pwl", "3": "bn3"}
    timm_name = _torchvisions_names(top, first, parts, MOBILENETV2_STAGES)
    return _renamed(tensors, timm_name, "torchvision's MobileNetV2", origin)


def _xcit(tensors: Tensors, origin: str) -> Tensors:
    """The authors' class attention has one matrix for q, k and v; timm has three."""
    split: Tensors = {}
    for key, value in tensors.items():
        found = re.fullmatch(r"(cls_attn_blocks\.\d+\.attn)\.qkv\.(weight|bias)", key)
        if found and value.dim() and value.shape[0] % 3 == 0:
            parts = zip("qkv", value.chunk(3), strict=False)  # of an empty tensor there are fewer
            split |= {f"{found[1]}.{letter}.{found[2]}": part for letter, part in parts}
        else:
            split[key] = value
    return _renamed(split, lambda key: re.sub(r"^pos_embeder\.", "pos_embed.", key), "XCiT", origin)


RESNET = Naming("ResNet", ("layer1.", "layer2.", "layer3.", "layer4."), ("fc.", "projection_head."), _as_they_are)
XCIT = Naming("XCiT", ("cls_attn_blocks.", "pos_embeder.", "patch_embed.proj.0."), ("head.", "fc."), _xcit)
VIT = Naming("ViT", ("patch_embed.", "blocks.0.attn.", "blocks.0.mlp."), ("head.", "fc."), _as_they_are)
TIMM_EFFICIENTNET = Naming(
    "timm's EfficientNets and MobileNets",
    ("conv_stem.", "blocks.0.0."),
    ("classifier.", "projection_head."),
    _as_they_are,
)
EFFICIENTNET_PYTORCH = Naming(
    "efficientnet_pytorch", ("_conv_stem.", "_blocks."), ("fc.", "projection_head."), _efficientnet_pytorch, ("_fc.",)
)
TORCHVISION_MOBILENETV2 = Naming(
    "torchvision's MobileNetV2", ("features.18.",), ("fc.",), _torchvision_mobilenetv2, ("classifier.",)
)
# Its `classifier.0` belongs to the backbone.
SEED_MOBILENETV3 = Naming("SEED's MobileNetV3", ("features.1.conv.", "features.2.conv."), ("fc.",), _seed_mobilenetv3)
# The first that fits counts.
NAMINGS = (EFFICIENTNET_PYTORCH, TORCHVISION_MOBILENETV2, SEED_MOBILENETV3, RESNET, XCIT, VIT, TIMM_EFFICIENTNET)
