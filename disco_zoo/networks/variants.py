"""The networks that the authors' weights need and timm does not have, registered in timm under names of ours.

A checkpoint of SEED's EfficientNets or MobileNetV3 loads strictly into timm's network of the same keys and
computes something else (spec 7). Each such network is therefore a name of its own, so that weights and
network cannot be mixed. The wide ResNets are SwAV's teachers. (As in `disco_students.py`, timm takes the file
name for the name of a model family.)
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import timm
import torch
from timm.layers import Conv2dSame
from timm.models import (
    PretrainedCfg,
    generate_default_cfgs,
    get_pretrained_cfg,
    model_entrypoint,
    register_model,
    resolve_pretrained_cfg,
)
from timm.models.resnet import Bottleneck, ResNet
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from disco_zoo.errors import WrongNetwork, shown

__all__: list[str] = []  # timm appends the names; it must be a list

B0_PAD224, B1_PAD2 = "disco_effb0_pad224", "disco_effb1_pad2"
MOBV3_SE_FIRST = "disco_mobv3_se_first"
WIDE_RESNETS = {"disco_r50w2": 2, "disco_r50w4": 4, "disco_r50w5": 5}
# What conversions of before the variant existed name: the same tensors, with padding that follows each image.
FORMER_NETWORKS = {B0_PAD224: "tf_efficientnet_b0"}
_NATIVE = {B0_PAD224: "tf_efficientnet_b0", B1_PAD2: "tf_efficientnet_b1", MOBV3_SE_FIRST: "mobilenetv3_large_100"}
_WHY = {
    B0_PAD224: "EfficientNet-B0 of efficientnet_pytorch: TF padding, frozen for an input of 224 pixels",
    B1_PAD2: "EfficientNet-B1 of efficientnet_pytorch: TF padding, frozen for an input of 240 pixels",
    MOBV3_SE_FIRST: "MobileNetV3-Large with squeeze-and-excitation before the depthwise activation (SEED, ssl-small)",
}


class GateThenActivate(nn.Module):
    """A squeeze-and-excitation block followed by the activation that timm puts before it; keys as timm's."""

    def __init__(self, gate: Any, activation: nn.Module) -> None:
        super().__init__()
        self.conv_reduce, self.act1 = gate.conv_reduce, gate.act1
        self.conv_expand, self.gate = gate.conv_expand, gate.gate
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3), keepdim=True)
        return self.activation(x * self.gate(self.conv_expand(self.act1(self.conv_reduce(pooled)))))


class FrozenSameConv(nn.Conv2d):
    """A convolution with the padding that SAME needs at one input size, whatever it gets; it takes over the weights.

    Args:
        same: timm's convolution, which pads by the image.
        side: of the input that the padding is for, in pixels.
    """

    def __init__(self, same: nn.Conv2d, side: int) -> None:
        (kernel, _), (stride, _), (dilation, _) = same.kernel_size, same.stride, same.dilation
        total = max((math.ceil(side / stride) - 1) * stride + (kernel - 1) * dilation + 1 - side, 0)
        super().__init__(
            same.in_channels,
            same.out_channels,
            kernel,
            stride,
            padding=total // 2,
            dilation=dilation,
            groups=same.groups,
            bias=False,
            device="meta",
        )
        self.weight = same.weight
        self.after = total % 2  # right and below

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.pad(input, (0, self.after, 0, self.after)) if self.after else input)


def _freeze_padding(side: int) -> Callable[[nn.Module], None]:
    """Freeze the padding of each convolution that steps as it is for images of `side` pixels; others need the same."""

    def patch(model: nn.Module) -> None:
        _blocks(model)
        seen = side
        for name, module in list(model.named_modules()):  # in the order of the forward pass
            if isinstance(module, Conv2dSame):
                model.set_submodule(name, FrozenSameConv(module, seen))
                seen = math.ceil(seen / module.stride[0])

    return patch


def _gate_first(model: nn.Module) -> None:
    """Move the depthwise activation behind the gate in the blocks that have one."""
    for stage in _blocks(model):
        for block in stage:
            gate = getattr(block, "se", None)
            if hasattr(gate, "conv_reduce"):
                block.se = GateThenActivate(gate, block.bn2.act)
                block.bn2.act = nn.Identity()


def _blocks(model: nn.Module) -> Any:
    blocks = getattr(model, "blocks", None)
    if blocks is None:  # timm's graph-extracting wrappers have no blocks left to change
        raise WrongNetwork("This variant cannot be cut by feature_cls; leave features_only's own way of doing it")
    return blocks


def _register_variant(name: str, patch: Callable[[nn.Module], None]) -> None:
    def build(**kwargs: Any) -> nn.Module:
        model = model_entrypoint(_NATIVE[name])(**kwargs)
        patch(model)
        return model

    _register(name, build)


def _register_wide_resnet(name: str, width: int) -> None:
    def build(**kwargs: Any) -> nn.Module:
        from timm.models import build_model_with_cfg

        return build_model_with_cfg(WideResNet50, name, width=width, **kwargs)

    _register(name, build)


def _register(name: str, build: Callable[..., nn.Module]) -> None:
    """Make timm know `build`, which gets the configuration that the caller's choices come to."""

    def entrypoint(
        pretrained: bool = False,
        pretrained_cfg: str | dict[str, Any] | PretrainedCfg | None = None,
        pretrained_cfg_overlay: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> nn.Module:
        cfg = resolve_pretrained_cfg(name, pretrained_cfg, pretrained_cfg_overlay)
        return build(pretrained=pretrained, pretrained_cfg=cfg, **kwargs)

    entrypoint.__name__ = entrypoint.__qualname__ = name
    entrypoint.__module__ = __name__
    register_model(entrypoint)


class WideResNet50(ResNet):
    """ResNet-50 with every layer `width` times as wide, the first convolution too (SwAV's RN50-w2, w4, w5).

    Not timm's `wide_resnet50_2`, which widens the middle of the bottlenecks only.
    """

    def __init__(self, width: int = 2, **kwargs: Any) -> None:
        channels = tuple(width * c for c in (64, 128, 256, 512))
        super().__init__(Bottleneck, [3, 4, 6, 3], channels=channels, **kwargs)
        stem, first = width * 64, self.layer1[0]
        in_chans = kwargs.get("in_chans", 3)
        self.conv1 = nn.Conv2d(in_chans, stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        first.conv1 = nn.Conv2d(stem, first.conv1.out_channels, 1, bias=False)
        first.downsample[0] = nn.Conv2d(stem, first.downsample[0].out_channels, 1, bias=False)
        self.feature_info[0]["num_chs"] = stem
        for module in (self.conv1, first.conv1, first.downsample[0]):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class _NothingDrawn(TorchFunctionMode):
    """Leaves tensors as they are where `torch.nn.init` would draw: without memory that loads torch's compiler."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


@functools.cache
def backbone_shapes(network: str) -> Mapping[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a headless network, by its timm name; nothing is allocated."""
    with torch.device("meta"), _NothingDrawn():
        model = timm.create_model(network, num_classes=0)
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


def check_backbone(network: str, shapes: Mapping[str, tuple[int, ...]], origin: str) -> None:
    """Refuse tensors that are not exactly those of the headless `network`; only BatchNorm's step counters may lack.

    Raises:
        WrongNetwork: names are missing, unknown, or of another shape; the message lists them.
    """
    wanted = backbone_shapes(network)
    missing = [key for key in wanted if key not in shapes and not key.endswith("num_batches_tracked")]
    unknown = [key for key in shapes if key not in wanted]
    differ = [
        f"{key} {shapes[key]}, not {wanted[key]}" for key in wanted if shapes.get(key, wanted[key]) != wanted[key]
    ]
    faults = [
        f"{title} {listed(keys)}"
        for title, keys in (("missing", missing), ("unknown", unknown), ("of another shape", differ))
        if keys
    ]
    if faults:
        raise WrongNetwork(f"{origin} does not fit {network}: {'; '.join(faults)}")


def listed(keys: Iterable[str], at_most: int = 4) -> str:
    """`(6) a, b, c, d and 2 more`."""
    keys = list(keys)
    more = f" and {len(keys) - at_most} more" if len(keys) > at_most else ""
    return f"({len(keys)}) {', '.join(shown(key) for key in keys[:at_most])}{more}"


def _cfg(native: str, description: str) -> PretrainedCfg:
    cfg = get_pretrained_cfg(native)
    return PretrainedCfg(
        num_classes=0,
        first_conv=cfg.first_conv,
        classifier=cfg.classifier,
        pool_size=cfg.pool_size,
        fixed_input_size=cfg.fixed_input_size,
        description=description,
    )


_cfgs = {name: _cfg(native, _WHY[name]) for name, native in _NATIVE.items()}
_cfgs |= {name: _cfg("resnet50", f"ResNet-50, {width} times as wide (SwAV)") for name, width in WIDE_RESNETS.items()}
default_cfgs = generate_default_cfgs(_cfgs)
_register_variant(B0_PAD224, _freeze_padding(224))
_register_variant(B1_PAD2, _freeze_padding(240))
_register_variant(MOBV3_SE_FIRST, _gate_first)
for _name, _width in WIDE_RESNETS.items():
    _register_wide_resnet(_name, _width)
