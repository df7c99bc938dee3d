"""Fine-tune a small backbone on your folder, then ask the classifier about one photo with timm alone.

    python examples/finetune_on_your_folder.py photos/ --photo new.jpg

`photos/` has a subfolder a class; a `test` split beside `train` is measured and chooses nothing. The same from the
command line: disco-zoo finetune disco_effb0 --data photos/ --class-weights balanced --out runs/my_classifier
"""

from __future__ import annotations

import argparse
from pathlib import Path

import timm
import torch
from PIL import Image

import disco_zoo


def train_classifier(data: str, out: Path, epochs: int | None) -> Path:
    """Train, print the figures, and return the folder of the classifier in timm's Hub format."""
    facts = disco_zoo.finetune("disco_effb0", data, out, epochs=epochs, class_weights="balanced")
    print(", ".join(f"{name} {value}" for name, value in facts["figures"].items()))
    return out / "model"


def classify(folder: Path, photo: Path) -> dict[str, float]:
    """Probabilities by class name, the likeliest first. Only timm is needed here."""
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    with Image.open(photo) as image, torch.inference_mode():
        probabilities = model(transform(image.convert("RGB"))[None]).softmax(dim=1)[0]
    names = model.pretrained_cfg["label_names"]
    by_name = {names[index]: probabilities[index].item() for index in probabilities.argsort(descending=True).tolist()}
    return by_name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="labelled photos: a folder with a subfolder a class")
    parser.add_argument("--photo", type=Path, help="a photo to classify afterwards")
    parser.add_argument("--out", type=Path, default=Path("runs/my_classifier"))
    parser.add_argument("--epochs", type=int)
    args = parser.parse_args()
    folder = train_classifier(args.data, args.out, args.epochs)
    if args.photo is not None:
        for name, probability in list(classify(folder, args.photo).items())[:5]:
            print(f"{probability:7.1%}  {name}")


if __name__ == "__main__":
    main()
