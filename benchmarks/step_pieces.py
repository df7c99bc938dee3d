"""What the pieces of a step gain, each against its plain form: python benchmarks/step_pieces.py

A frozen teacher's forward, folded against as loaded, and an optimiser's step, fused against one tensor at a time. CPU
seconds of pairs in turn; the ratio of a row is the median of its pairs' ratios.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import timm
import torch

from disco_zoo.optim import build_optimizer
from disco_zoo.recipe_optim import OptimSection
from disco_zoo.teachers import Teacher, load_teacher_source

TEACHERS = ("resnet50", "lite0", "efficientnet_b0", "mobilenetv3_large_100", "regnety_032")
STUDENTS = ("efficientnet_b0", "resnet18")
OPTIMISERS = ("sgd", "adamw")

Work = Callable[[], object]


def paired(new: Work, plain: Work, rounds: int) -> tuple[float, float, list[float]]:
    """Medians in milliseconds, and the sorted ratios of the pairs."""
    turns = []
    for turn in range(rounds + 1):
        each = []
        for work in (new, plain):
            began = time.process_time()
            work()
            each.append(time.process_time() - began)
        if turn:  # the first one warms up
            turns.append(each)
    first, second = (1000 * statistics.median(column) for column in zip(*turns, strict=True))
    return first, second, sorted(a / b for a, b in turns)


def teacher_works(name: str, image_size: int, batch_size: int) -> tuple[Work, Work]:
    teacher = Teacher(load_teacher_source(name, pretrained=False), image_size=image_size)
    views = torch.randint(0, 256, (batch_size, 3, image_size, image_size), dtype=torch.uint8)
    plain = teacher.encoder

    def unfolded() -> None:
        with torch.no_grad():
            plain.head(plain.features(views))

    return lambda: teacher(views), unfolded


def optimiser_works(name: str, kind: str) -> tuple[Work, Work]:
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


def row(what: str, works: tuple[Work, Work], rounds: int) -> str:
    new, plain, ratios = paired(*works, rounds)
    spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
    return f"| {what} | {new:.1f} | {plain:.1f} | {statistics.median(ratios):.2f} | {spread} |"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    print("| piece | now, ms | plain, ms | ratio | range |\n|---|---:|---:|---:|---|")
    for name in TEACHERS:
        works = teacher_works(name, args.image_size, args.batch_size)
        print(row(f"teacher {name}, folded", works, args.rounds), flush=True)
    for name in STUDENTS:
        for kind in OPTIMISERS:
            print(row(f"{kind} of {name}, fused", optimiser_works(name, kind), args.rounds), flush=True)


if __name__ == "__main__":
    main()
