"""Convolutions of students that PyTorch trains slowly on a CPU: the same numbers by operations that it does well.

Measured by `benchmarks/cpu_convolutions.py`:

- A dense convolution over few positions takes longer than the product of patches and weights that it stands for. The
  last stage of a ResNet-18 sees maps of 2×2 for images of 64 pixels.
- The gradient of depthwise weights takes longer for kernels wider than three, or wider than the map, than for three
  columns of them at a time; that of the maps, in bfloat16 and with a stride, than the convolution of the spread
  gradient with the turned kernel.

In bfloat16 PyTorch's strided convolutions into a single column are wrong (`findings/torch_bf16_narrow_maps.sh`): they
take the same ways.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FEW_POSITIONS = 1024  # in all maps of a batch together
MANY_WEIGHTS = 2**20
FAST_COLUMNS = 3


class ProductConv2d(nn.Conv2d):
    """A dense convolution; in training a product of patches and weights where a batch's maps have few positions.

    So it is into a single column by a stride.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, D, H, W) of maps (B, C, H', W')."""
        (high, wide), (down, right) = self.kernel_size, self.stride
        top, left = cast("tuple[int, int]", self.padding)
        height = (maps.shape[2] + 2 * top - high) // down + 1
        width = (maps.shape[3] + 2 * left - wide) // right + 1
        is_slow = len(maps) * height * width <= FEW_POSITIONS and self.weight.numel() >= MANY_WEIGHTS
        if not self.training or not (is_slow or (width == 1 and right > 1)):
            return super().forward(maps)
        padded = F.pad(maps.permute(0, 2, 3, 1), (0, 0, left, left, top, top))
        patches = [
            padded[:, i : i + height * down : down, j : j + width * right : right]
            for i in range(high)
            for j in range(wide)
        ]
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)
        return F.linear(torch.cat(patches, -1), weight, self.bias).permute(0, 3, 1, 2)


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution without bias; in training its gradients come by the faster way."""

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, C, H, W) of maps (B, C, H', W')."""
        if not self.training or not torch.is_grad_enabled():
            return super().forward(maps)
        weight = self.weight
        if torch.is_autocast_enabled("cpu"):
            maps, weight = (tensor.to(torch.get_autocast_dtype("cpu")) for tensor in (maps, weight))
        return cast(Tensor, _Depthwise.apply(maps, weight, self.stride, self.padding))


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(maps, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(maps, weight, None, stride, padding, 1, len(weight))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        maps, weight = ctx.saved_tensors
        needs_maps, needs_weight = ctx.needs_input_grad[:2]
        by_spread = needs_maps and gradient.dtype == torch.bfloat16 and max(ctx.stride) > 1
        width = maps.shape[3]
        by_columns = needs_weight and (weight.shape[3] > min(FAST_COLUMNS, width) or width < ctx.stride[1])
        given = (maps, weight, gradient, ctx.stride, ctx.padding)
        of_maps, of_weight = _gradients(*given, [needs_maps and not by_spread, needs_weight and not by_columns])
        if by_spread:
            of_maps = _gradient_of_maps(*given)
        if by_columns:
            of_weight = _gradient_of_weight(*given)
        return of_maps, of_weight, None, None


def _gradients(
    maps: Tensor, weight: Tensor, gradient: Tensor, stride: Any, padding: Any, wanted: list[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Of maps and weights, by PyTorch, those that are wanted."""
    if not any(wanted):
        return None, None
    given = (gradient, maps, weight, None, stride, padding, (1, 1), False, (0, 0), len(weight), [*wanted, False])
    found = torch.ops.aten.convolution_backward(*given)
    return found[0], found[1]


def _gradient_of_maps(
    maps: Tensor, weight: Tensor, gradient: Tensor, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """The gradient, spread to the stride, meets the kernel turned by 180 degrees."""
    sizes = [maps.shape[2 + axis] - weight.shape[2 + axis] + 1 + 2 * padding[axis] for axis in (0, 1)]
    spread = gradient.new_zeros(len(maps), *sizes, len(weight)).permute(0, 3, 1, 2)
    spread[:, :, :: stride[0], :: stride[1]][:, :, : gradient.shape[2], : gradient.shape[3]] = gradient
    outside = [weight.shape[2 + axis] - 1 - padding[axis] for axis in (0, 1)]
    return F.conv2d(spread, weight.flip(2, 3), None, 1, outside, 1, len(weight))


def _gradient_of_weight(
    maps: Tensor, weight: Tensor, gradient: Tensor, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """Three columns of the kernel at a time, each from what they see of the padded maps; the last may overlap."""
    images, channels, height, width = maps.shape
    top, left = padding
    columns = min(weight.shape[3], FAST_COLUMNS)
    reach = (gradient.shape[3] - 1) * stride[1] + columns
    found = torch.empty_like(weight)
    last = weight.shape[3] - columns
    for first in {*range(0, last, columns), last}:
        seen = maps.new_zeros(images, height + 2 * top, reach, channels).permute(0, 3, 1, 2)
        low, high = max(0, left - first), min(reach, width + left - first)
        if low < high:  # else these columns see nothing but padding
            seen[:, :, top : top + height, low:high] = maps[..., low + first - left : high + first - left]
        part = weight[..., first : first + columns]
        _, of_part = _gradients(seen, part, gradient, stride, (0, 0), [False, True])
        assert of_part is not None  # it was wanted
        found[..., first : first + columns] = of_part
    return found


def use_cpu_convolutions(network: nn.Module) -> None:
    """Let the convolutions of a network that may gain by it take the faster way; tensors and their names stay."""
    for module in network.modules():
        if (
            type(module) is not nn.Conv2d
            or module.kernel_size == (1, 1)
            or module.dilation != (1, 1)
            or module.padding_mode != "zeros"
            or isinstance(module.padding, str)
        ):
            continue
        high, wide = module.kernel_size
        depthwise = module.groups == module.in_channels == module.out_channels > 1 and module.bias is None
        if module.groups == 1 and (module.weight.numel() >= MANY_WEIGHTS or module.stride[1] > 1):
            module.__class__ = ProductConv2d
        elif depthwise and high > module.padding[0] and wide > module.padding[1]:
            module.__class__ = DepthwiseConv2d
