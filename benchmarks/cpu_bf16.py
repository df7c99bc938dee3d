"""Forward and backward of students on a CPU, `optim.precision: bf16` against fp32: python benchmarks/cpu_bf16.py

CPU seconds of pairs of steps in turn, so that what disturbs the machine disturbs both; the ratio of a row is the median
of its pairs' ratios. What a processor has for bf16 decides: the first line says what this one has.
"""

from __future__ import annotations

import argparse
import functools

import timm
import torch
from pairs import cells
from torch import nn

from disco_zoo.core.environment import benchmark_line
from disco_zoo.models.encoder import channels_last_pays

MODELS = ("efficientnet_b0", "mobilenetv3_large_100", "resnet18", "resnet34", "vit_tiny_patch16_224")
INSTRUCTIONS = ("avx512_bf16", "amx_bf16")


def step(network: nn.Module, images: torch.Tensor, half: bool) -> None:
    """Forward and backward of normalised images (B, 3, S, S) under autocast, as accelerate trains."""
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        features = network(images)
    features.float().square().mean().backward()
    network.zero_grad()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    images = torch.randn(args.batch_size, 3, args.image_size, args.image_size)
    found = [name for name in INSTRUCTIONS if torch.cpu.get_capabilities().get(name)]
    print(f"{benchmark_line(args.threads)}; {' and '.join(found) or 'no bf16 instructions'}\n")
    print("| network | bf16, ms | fp32, ms | ratio | range |\n|---|---:|---:|---:|---|")
    for name in args.models:
        options = {"dynamic_img_size": True} if name.startswith("vit") else {}
        network = timm.create_model(name, num_classes=0, **options).train()
        if channels_last_pays(network, args.image_size):
            network = network.to(memory_format=torch.channels_last)
        bf16, fp32 = (functools.partial(step, network, images, half) for half in (True, False))
        print(f"| {name} | {cells(bf16, fp32, args.rounds, decimals=0)} |", flush=True)


if __name__ == "__main__":
    main()
