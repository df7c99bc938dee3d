"""Forward and backward of student networks, channels-last against contiguous: python benchmarks/channels_last.py

CPU seconds of pairs of steps in turn, so that what disturbs the machine disturbs both; the ratio of a row is the median
of its pairs' ratios. `disco_zoo.models.encoder.channels_last_pays` is the rule that was read off the table.
"""

from __future__ import annotations

import functools

import torch
from pairs import cells, step_settings
from torch import nn

from disco_zoo.core.environment import benchmark_line
from disco_zoo.models.encoder import channels_last_pays
from disco_zoo.networks.input_size import create_for_any_size

MODELS = (
    "efficientnet_b0",
    "efficientnet_b1",
    "mobilenetv2_100",
    "mobilenetv3_large_100",
    "resnet18",
    "resnet34",
    "resnet50",
    "vit_tiny_patch16_224",
    "xcit_tiny_12_p16_224",
)


def step(network: nn.Module, images: torch.Tensor) -> None:
    """Forward and backward of normalised images (B, 3, S, S), which come contiguous as the views do."""
    network(images).square().mean().backward()
    network.zero_grad()


def pair(name: str, image_size: int) -> list[nn.Module]:
    """The same network twice: channels-last and contiguous."""
    formats = (torch.channels_last, torch.contiguous_format)
    networks = [create_for_any_size(name, num_classes=0).train() for _ in formats]
    return [network.to(memory_format=chosen) for network, chosen in zip(networks, formats, strict=True)]


def main() -> None:
    args, images = step_settings(__doc__, MODELS)
    print(f"{benchmark_line(args.threads)}\n")
    print("| network | channels-last, ms | contiguous, ms | ratio | range | rule |\n|---|---:|---:|---:|---|---|")
    for name in args.models:
        networks = pair(name, args.image_size)
        works = [functools.partial(step, network, images) for network in networks]
        rule = "channels-last" if channels_last_pays(networks[0], args.image_size) else "contiguous"
        print(f"| {name} | {cells(works[0], works[1], args.rounds, decimals=0)} | {rule} |", flush=True)


if __name__ == "__main__":
    main()
