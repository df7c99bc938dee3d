"""What the pieces of a step gain, each against its plain form: python benchmarks/step_pieces.py

A frozen teacher's forward, folded against as loaded, and an optimiser's step, fused against one tensor at a time. CPU
seconds of pairs in turn; the ratio of a row is the median of its pairs' ratios.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import timm
import torch
from pairs import Work, cells

from disco_zoo.config.optim import OptimSection
from disco_zoo.core.environment import benchmark_line
from disco_zoo.models.teacher import Teacher
from disco_zoo.models.teacher_source import load_teacher_source
from disco_zoo.training.optim import build_optimizer

TEACHERS = ("resnet50", "lite0", "efficientnet_b0", "mobilenetv3_large_100", "regnety_032")
STUDENTS = ("efficientnet_b0", "resnet18")
OPTIMIZERS = ("sgd", "adamw")


def teacher_works(name: str, image_size: int, batch_size: int) -> tuple[Work, Work]:
    teacher = Teacher(load_teacher_source(name, pretrained=False), image_size=image_size)
    views = torch.randint(0, 256, (batch_size, 3, image_size, image_size), dtype=torch.uint8)
    plain = teacher.encoder

    def unfolded() -> None:
        with torch.no_grad():
            plain.head(plain.features(views))

    return lambda: teacher(views), unfolded


def optimizer_works(name: str, kind: str) -> tuple[Work, Work]:
    section = OptimSection.model_validate(
        {
            "optimizer": kind,
            "batch_size": 256,
            "base_lr": 0.01,
            "weight_decay": 1e-4,
            "schedule": "constant",
            "epochs": 1,
        }
    )
    steps = []
    for fused in (True, False):
        network = timm.create_model(name, num_classes=0).to(memory_format=torch.channels_last)
        for parameter in network.parameters():
            parameter.grad = torch.full_like(parameter, 1e-3)
        optimizer = build_optimizer(network.parameters(), section, 0.01)
        if not fused:
            for group in optimizer.param_groups:
                group["fused"], group["foreach"] = False, False
        steps.append(optimizer.step)
    return steps[0], steps[1]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    print(f"{benchmark_line(args.threads)}\n")
    print("| piece | now, ms | plain, ms | ratio | range |\n|---|---:|---:|---:|---|")
    for name in TEACHERS:
        works = teacher_works(name, args.image_size, args.batch_size)
        print(f"| teacher {name}, folded | {cells(*works, args.rounds)} |", flush=True)
    for name in STUDENTS:
        for kind in OPTIMIZERS:
            works = optimizer_works(name, kind)
            print(f"| {kind} of {name}, fused | {cells(*works, args.rounds)} |", flush=True)


if __name__ == "__main__":
    main()
