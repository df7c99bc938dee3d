"""Resident memory of real trainings over what `plan` counts in tensors: python benchmarks/plan_memory.py

Each training is a process of its own, three steps after a toy run; the ratio is what malloc and kernels add, which
`disco_zoo.plan.types.CPU_ALLOCATOR_FACTOR` stands for.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from disco_zoo.core.environment import benchmark_line
from disco_zoo.plan.stand_ins import NoiseSource, without_weights
from disco_zoo.plan.step_cost import step_cost
from disco_zoo.plan.types import predict_memory

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from measure_training_memory import measured_recipe, peak_of_training

MIB = 2**20
CASES = (
    ("resnet18", 32, 128, "moco_v2"),
    ("mobilenetv3_large_100", 64, 64, "moco_v2"),
    ("efficientnet_b0", 64, 64, "moco_v2"),
    ("resnet18", 32, 256, "simclr"),
    ("resnet34", 64, 64, "disco"),
    ("resnet50", 64, 32, "moco_v2"),
    ("efficientnet_b0", 96, 32, "disco"),
    ("mobilenetv3_large_100", 96, 64, "simclr"),
    ("vit_tiny_patch16_224", 64, 64, "moco_v2"),
    ("vit_tiny_patch16_224", 96, 64, "disco"),
    ("resnet18", 96, 32, "disco"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=len(CASES), help="measure the first so many alone")
    given = parser.parse_args()
    print(f"{benchmark_line(1)}\n")
    print("| training | tensors, predicted (MiB) | resident, predicted | measured | measured / tensors |")
    print("|---|---:|---:|---:|---:|")
    ratios = []
    for case in CASES[: given.cases]:
        student, image_size, batch_size, method = case
        recipe = without_weights(measured_recipe(*case))
        predicted = predict_memory(step_cost(recipe, NoiseSource(batch_size), batch_size), devices=1)
        tensors, resident = predicted.tensors_bytes / MIB, predicted.resident_bytes / MIB
        with tempfile.TemporaryDirectory() as folder:
            measured = peak_of_training(Path(folder), *case)
        ratios.append(measured / tensors)
        title = f"{student}, {image_size} px, batch {batch_size}, {method}"
        print(f"| {title} | {tensors:.0f} | {resident:.0f} | {measured:.0f} | {ratios[-1]:.2f} |", flush=True)
    print(f"\n{len(ratios)} trainings: {min(ratios):.2f} to {max(ratios):.2f}")


if __name__ == "__main__":
    main()
