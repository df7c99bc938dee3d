"""A student's step and a frozen forward, channels-last against contiguous: python benchmarks/channels_last.py

Students train channels-last; `disco_zoo.models.encoder.channels_last_pays` is the rule for teachers. CPU seconds of
pairs in turn, so that what disturbs the machine disturbs both; the ratio of a row is the median of its pairs' ratios.
"""

from __future__ import annotations

import functools

import torch
from pairs import cells, step_settings, train_step
from torch import nn

from disco_zoo.core.environment import benchmark_line
from disco_zoo.models.encoder import channels_last_pays
from disco_zoo.networks.cpu_convolutions import use_cpu_convolutions
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


def frozen_forward(network: nn.Module, images: torch.Tensor) -> None:
    with torch.inference_mode():
        network(images)


def pair(name: str) -> list[nn.Module]:
    """The same network twice, as it is trained: channels-last and contiguous."""
    formats = (torch.channels_last, torch.contiguous_format)
    networks = [create_for_any_size(name, num_classes=0) for _ in formats]
    for network in networks:
        use_cpu_convolutions(network)
    return [network.to(memory_format=chosen) for network, chosen in zip(networks, formats, strict=True)]


def main() -> None:
    args, images = step_settings(__doc__, MODELS)
    print(f"{benchmark_line(args.threads)}\n")
    print("| network | work | channels-last, ms | contiguous, ms | ratio | range | rule |")
    print("|---|---|---:|---:|---:|---|---|")
    for name in args.models:
        networks = pair(name)
        last, contiguous = (functools.partial(train_step, network.train(), images) for network in networks)
        print(f"| {name} | step | {cells(last, contiguous, args.rounds, decimals=0)} | channels-last |", flush=True)
        last, contiguous = (functools.partial(frozen_forward, network.eval(), images) for network in networks)
        rule = "channels-last" if channels_last_pays(networks[0], args.image_size) else "contiguous"
        print(f"| {name} | frozen forward | {cells(last, contiguous, args.rounds, decimals=0)} | {rule} |", flush=True)


if __name__ == "__main__":
    main()
