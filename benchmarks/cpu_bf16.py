"""Forward and backward of students on a CPU, `optim.precision: bf16` against fp32: python benchmarks/cpu_bf16.py

CPU seconds of pairs of steps in turn, so that what disturbs the machine disturbs both; the ratio of a row is the median
of its pairs' ratios. What a processor has for bf16 decides: the first line says what this one has.
"""

from __future__ import annotations

import functools

import torch
from pairs import cells, step_settings, train_step

from disco_zoo.core.environment import benchmark_line
from disco_zoo.networks.cpu_convolutions import use_cpu_convolutions
from disco_zoo.networks.input_size import create_for_any_size
from disco_zoo.training.accelerator import BF16_INSTRUCTIONS

MODELS = ("efficientnet_b0", "mobilenetv3_large_100", "resnet18", "resnet34", "vit_tiny_patch16_224")


def main() -> None:
    args, images = step_settings(__doc__, MODELS)
    found = [name for name in BF16_INSTRUCTIONS if torch.cpu.get_capabilities().get(name)]
    print(f"{benchmark_line(args.threads)}; {' and '.join(found) or 'no bf16 instructions'}\n")
    print("| network | bf16, ms | fp32, ms | ratio | range |\n|---|---:|---:|---:|---|")
    for name in args.models:
        network = create_for_any_size(name, num_classes=0).train().to(memory_format=torch.channels_last)
        use_cpu_convolutions(network)
        bf16, fp32 = (functools.partial(train_step, network, images, half) for half in (True, False))
        print(f"| {name} | {cells(bf16, fp32, args.rounds, decimals=0)} |", flush=True)


if __name__ == "__main__":
    main()
