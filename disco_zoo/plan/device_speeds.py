"""Peak speeds that manufacturers state for their devices, in TFLOP/s by precision."""

from __future__ import annotations

import math
from dataclasses import dataclass

from disco_zoo.errors import UnknownName, did_you_mean

# Shares of a peak, from timm's published throughputs on one RTX 3090 (71 TFLOP/s in fp16 by NVIDIA's GA102 whitepaper;
# pytorch-image-models at 5e7d47c, results/benchmark-*-amp-nhwc-pt112-cu113-rtx3090.csv) times FLOPs as counted here:
# 0.42 for ResNet-50 forward and in training, 0.54 for ResNet-18 in training, 0.56 for ViT-B/16 forward; but 0.06 for
# EfficientNet-B0 and 0.05 for MobileNetV3-L in training, 0.09 for EfficientNet-B0 forward.
DEFAULT_UTILIZATION = 0.4
DEPTHWISE_SLOWDOWN = 7.0  # of networks with depthwise convolutions, against that


@dataclass(frozen=True)
class DeviceSpeed:
    """Dense peaks, without sparsity.

    Attributes:
        fp32: TFLOP/s outside tensor cores.
        half: TFLOP/s of tensor cores in bf16, or fp16 where there is no bf16.
        source: where the maker says so.
    """

    title: str
    fp32: float
    half: float
    source: str

    def tflops(self, precision: str) -> float:
        return self.fp32 if precision == "fp32" else self.half


DEVICE_SPEEDS = {
    "v100": DeviceSpeed("NVIDIA V100 SXM2", 15.7, 125, "NVIDIA's V100 datasheet"),
    "t4": DeviceSpeed("NVIDIA T4", 8.1, 65, "NVIDIA's T4 datasheet"),
    "a100": DeviceSpeed("NVIDIA A100 SXM", 19.5, 312, "NVIDIA's A100 datasheet"),
    "l4": DeviceSpeed(
        "NVIDIA L4", 30.3, 121, "NVIDIA's L4 datasheet; tensor cores at half of its figure with sparsity"
    ),
    "h100": DeviceSpeed(
        "NVIDIA H100 SXM", 67, 989, "NVIDIA's H100 datasheet; tensor cores at half of its figure with sparsity"
    ),
}


def device_speed(text: str, precision: str) -> tuple[float, str]:
    """TFLOP/s and where the figure comes from, for a number or a device's name.

    Raises:
        UnknownName: neither.
    """
    try:
        tflops = float(text)
    except ValueError:
        known = DEVICE_SPEEDS.get(text.lower())
        if known is None:
            hint = did_you_mean(text.lower(), DEVICE_SPEEDS)
            raise UnknownName(
                f"--device-tflops {text}: neither a number nor one of {', '.join(DEVICE_SPEEDS)}.{hint}"
            ) from None
        return known.tflops(precision), f"{known.title}'s peak in {precision} ({known.source})"
    if not (math.isfinite(tflops) and tflops > 0):
        raise UnknownName(f"--device-tflops {text}: must be above 0. Type: --device-tflops a100")
    return tflops, "as given"
