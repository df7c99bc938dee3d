"""What it gains and costs that training steps on a CPU keep their memory, and in huge pages: `core.process.KeptMemory`.

    python benchmarks/kept_memory.py [--networks efficientnet_b0 mobilenetv3_large_100 resnet18] [--image-size 224]
    python benchmarks/kept_memory.py --evaluate    # steps after evaluations, one of which gives memory back

The same steps on noise with and without, in processes of their own that take turns: forward, backward and AdamW.
Seconds are the processor's, user's and kernel's, which other programs disturb least; memory is the process's peak.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import timm
import torch
from torch import nn

from disco_zoo.core.environment import benchmark_line
from disco_zoo.core.process import KeptMemory, peak_memory_mib
from disco_zoo.models.forward import Forward

EVALUATED_BATCHES = 60


def steps(
    network: str, image_size: int, batch_size: int, count: int, keep: bool, evaluate: bool = False
) -> dict[str, float]:
    """CPU seconds, the kernel's among them, page faults and peak MiB of `count` steps after three others.

    Args:
        evaluate: before these steps features are computed; without `keep` what is free then goes back.
    """
    torch.set_num_threads(1)
    model = timm.create_model(network, num_classes=10).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)
    with KeptMemory("cpu", steps_to_collapse=3) as memory:
        for step in range(3 + count):
            if step == 3:
                if evaluate:
                    KeptMemory.in_use = keep
                    compute_features(model, image_size, batch_size)
                began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF)
            images = torch.randn(batch_size, 3, image_size, image_size).to(memory_format=torch.channels_last)
            model(images).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            if keep or (evaluate and step < 3):
                memory.after_step()
        after = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "seconds": time.process_time() - began,
            "kernel_seconds": after.ru_stime - before.ru_stime,
            "faults": after.ru_minflt - before.ru_minflt,
            "peak_mib": peak_memory_mib() or 0.0,
        }


def compute_features(model: nn.Module, image_size: int, batch_size: int) -> None:
    model.eval()
    noise = torch.randn(batch_size, 3, image_size, image_size).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        for _ in Forward(model, image_size).stream((noise, None) for _ in range(EVALUATED_BATCHES)):
            pass
    model.train()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["efficientnet_b0", "mobilenetv3_large_100", "resnet18"])
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=40)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--evaluate", action="store_true")
    parser.add_argument("--keep", type=int, choices=(0, 1), help="run one side here and print it")
    given = parser.parse_args()
    if given.keep is not None:
        sizes = (given.image_size, given.batch_size, given.steps)
        print(json.dumps(steps(given.networks[0], *sizes, bool(given.keep), given.evaluate)))
        return
    print(f"{benchmark_line(1)}; {given.image_size} px, batch {given.batch_size}, {given.rounds} rounds\n")
    print(
        "| network | kernel's share | with memory kept | times faster | times the memory |\n|---|---:|---:|---:|---:|"
    )
    shared = ["--image-size", given.image_size, "--batch-size", given.batch_size, "--steps", given.steps]
    shared += ["--evaluate"] if given.evaluate else []
    for network in given.networks:
        rounds = []
        for number in range(given.rounds):
            found = {}
            for keep in ((0, 1), (1, 0))[number % 2]:
                words = [sys.executable, __file__, "--networks", network, "--keep", keep, *shared]
                done = subprocess.run([*map(str, words)], check=True, capture_output=True, text=True)
                found[keep] = json.loads(done.stdout)
            rounds.append(found)
        share = [statistics.median(one[k]["kernel_seconds"] / one[k]["seconds"] for one in rounds) for k in (0, 1)]
        faster = [one[0]["seconds"] / one[1]["seconds"] for one in rounds]
        memory = statistics.median(one[1]["peak_mib"] / one[0]["peak_mib"] for one in rounds)
        spread = f"{statistics.median(faster):.2f} ({min(faster):.2f} to {max(faster):.2f})"
        print(f"| {network} | {share[0]:.0%} | {share[1]:.0%} | {spread} | {memory:.2f} |", flush=True)


if __name__ == "__main__":
    main()
