"""DisCo's EfficientNets and MobileNetV3, whose tensors bear timm's names, as plain functions of a state dict."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]
EPS = 1e-5
EFFICIENTNET_STRIDES = (1, 2, 2, 2, 1, 2, 1)
MOBILENETV3_STRIDES = (1, 2, 2, 2, 1, 2, 1)


def _hard_sigmoid(x: Tensor) -> Tensor:
    return F.relu6(x + 3) / 6


def _hard_swish(x: Tensor) -> Tensor:
    return x * _hard_sigmoid(x)


def _norm(state: State, name: str, x: Tensor) -> Tensor:
    mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    return F.batch_norm(x, mean, var, state[f"{name}.weight"], state[f"{name}.bias"], training=False, eps=EPS)


def _conv(state: State, name: str, x: Tensor, stride: int = 1) -> Tensor:
    """Symmetric padding; depthwise where the kernel has one input channel."""
    weight, bias = state[f"{name}.weight"], state.get(f"{name}.bias")
    groups = x.shape[1] // weight.shape[1]
    return F.conv2d(x, weight, bias, stride=stride, padding=weight.shape[-1] // 2, groups=groups)


def _block(
    state: State,
    name: str,
    x: Tensor,
    stride: int,
    act: Callable[[Tensor], Tensor],
    squeeze: Callable[[Tensor], Tensor],
    gate: Callable[[Tensor], Tensor],
) -> Tensor:
    y, expands = x, f"{name}.conv_pwl.weight" in state
    if expands:
        y = act(_norm(state, f"{name}.bn1", _conv(state, f"{name}.conv_pw", y)))
    y = act(_norm(state, f"{name}.bn{1 + expands}", _conv(state, f"{name}.conv_dw", y, stride)))
    if f"{name}.se.conv_reduce.weight" in state:
        inner = squeeze(_conv(state, f"{name}.se.conv_reduce", y.mean(dim=(2, 3), keepdim=True)))
        y = y * gate(_conv(state, f"{name}.se.conv_expand", inner))
    last = "conv_pwl" if expands else "conv_pw"
    y = _norm(state, f"{name}.bn{2 + expands}", _conv(state, f"{name}.{last}", y))
    return x + y if stride == 1 and x.shape == y.shape else y


def _blocks(state: State, stage: int) -> list[str]:
    return sorted({".".join(key.split(".")[:3]) for key in state if key.startswith(f"blocks.{stage}.")})


def efficientnet(state: State, images: Tensor) -> Tensor:
    """Pooled features (B, 1280) of EfficientNet-B0 or B1, by the number of blocks in `state`."""
    x = F.silu(_norm(state, "bn1", _conv(state, "conv_stem", images, 2)))
    for stage, stride in enumerate(EFFICIENTNET_STRIDES):
        for number, name in enumerate(_blocks(state, stage)):
            x = _block(state, name, x, 1 if number else stride, F.silu, F.silu, lambda z: z.sigmoid())
    return F.silu(_norm(state, "bn2", _conv(state, "conv_head", x))).mean(dim=(2, 3))


def mobilenetv3_large(state: State, images: Tensor) -> Tensor:
    """Features (B, 1280) behind the last hidden layer; the gate comes after the activation."""
    x = _hard_swish(_norm(state, "bn1", _conv(state, "conv_stem", images, 2)))
    for stage, stride in enumerate(MOBILENETV3_STRIDES[:-1]):
        act = F.relu if stage < 3 else _hard_swish
        for number, name in enumerate(_blocks(state, stage)):
            x = _block(state, name, x, 1 if number else stride, act, F.relu, _hard_sigmoid)
    x = _hard_swish(_norm(state, "blocks.6.0.bn1", _conv(state, "blocks.6.0.conv", x)))
    return _hard_swish(_conv(state, "conv_head", x.mean(dim=(2, 3), keepdim=True))).flatten(1)
