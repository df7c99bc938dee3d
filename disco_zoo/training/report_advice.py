"""What a run's report tells its reader to do: whether the images were enough, and how to load the student."""

from __future__ import annotations

from typing import Any

# A judgement: 312 steps on 10,000 images leave EfficientNet-B0 from inherited tensors at 20.9 % kNN (docs/photos.md).
FEW_STEPS = 1000


def enough_line(images: int, batch_size: int, total_steps: int, epochs: int) -> str | None:
    """A sentence for runs of few steps, and what to type; None for others.

    Args:
        images: of an epoch.
        total_steps: of the whole recipe.
    """
    if total_steps >= FEW_STEPS:
        return None
    a_epoch = max(1, images // batch_size)
    wanted = -(-FEW_STEPS // a_epoch)
    return (
        f"{images} images are {_steps(a_epoch)} an epoch, {_steps(total_steps)} in {epochs} epochs: a start from "
        f"random or inherited tensors learns little from so few, ready weights change little. For {FEW_STEPS} steps: "
        f"--set optim.epochs={wanted}. Ready weights without training: disco-zoo list --weights bundled"
    )


def load_lines(student: dict[str, Any]) -> list[str]:
    """How to load an exported student in timm, alone where the network is its own, with its input size, mean and std.

    Args:
        student: of run.json.
    """
    size = student["image_size"]
    resize = student["resize_size"] or round(size * 256 / 224)
    return [
        "```python",
        *(["import disco_zoo  # registers the network"] if student["architecture"].startswith("disco_") else []),
        "import timm",
        "from safetensors.torch import load_file",
        "from timm.data import create_transform",
        "",
        f'model = timm.create_model("{student["architecture"]}", num_classes=0)',
        f'model.load_state_dict(load_file("{student["file"]}"))',
        "transform = create_transform(",
        f'    {size}, crop_pct={size} / {resize}, interpolation="bilinear", mean={tuple(student["mean"])}, '
        f"std={tuple(student['std'])}",
        ")",
        "features = model.eval()(transform(image)[None])",
        "```",
    ]


def _steps(number: int) -> str:
    return f"{number} step{'' if number == 1 else 's'}"
