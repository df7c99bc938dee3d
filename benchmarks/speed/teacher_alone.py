"""The teacher's part of a step and nothing else: both views of a batch, in float32, without gradient."""

from __future__ import annotations

import argparse

import timm
import torch
from contestant import run_steps


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--teacher", default="resnet50")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=64)
    given = parser.parse_args()
    options = {"img_size": given.size} if "vit" in given.teacher else {}
    teacher = timm.create_model(given.teacher, num_classes=0, **options).eval().requires_grad_(False)
    views = [torch.randn(given.batch_size, 3, given.size, given.size) for _ in range(2)]

    def step():
        with torch.no_grad():
            for view in views:
                teacher(view)

    run_steps(step)


if __name__ == "__main__":
    main()
