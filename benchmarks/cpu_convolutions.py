"""Forward and backward of students on a CPU, convolutions by faster ways against PyTorch's.

    python benchmarks/cpu_convolutions.py [--image-size 32] [--models resnet18]

CPU seconds of pairs of steps in turn, so that what disturbs the machine disturbs both; the ratio of a row is the median
of its pairs' ratios.
"""

from __future__ import annotations

import functools

import torch
from pairs import cells, step_settings, train_step

from disco_zoo.core.environment import benchmark_line
from disco_zoo.networks.cpu_convolutions import use_cpu_convolutions
from disco_zoo.networks.input_size import create_for_any_size

MODELS = ("efficientnet_b0", "efficientnet_b1", "mobilenetv3_large_100", "resnet18", "resnet34", "resnet50")


def main() -> None:
    args, images = step_settings(__doc__, MODELS)
    print(f"{benchmark_line(args.threads)}\n")
    print("| network | precision | faster ways, ms | PyTorch's, ms | ratio | range |\n|---|---|---:|---:|---:|---|")
    for name in args.models:
        networks = [
            create_for_any_size(name, num_classes=0).train().to(memory_format=torch.channels_last) for _ in range(2)
        ]
        use_cpu_convolutions(networks[0])
        for precision in ("fp32", "bf16"):
            ours, theirs = (functools.partial(train_step, network, images, precision == "bf16") for network in networks)
            print(f"| {name} | {precision} | {cells(ours, theirs, args.rounds, decimals=0)} |", flush=True)


if __name__ == "__main__":
    main()
