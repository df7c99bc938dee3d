"""Whole runs in seconds: toy images, toy networks, and ways to look into what a run left behind."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import timm
import torch
from data_makers import encode
from PIL import Image
from timm.models import register_model
from torch import nn

from disco_zoo.config.recipe import Recipe, parse_recipe
from disco_zoo.core.yaml_io import dump_yaml
from disco_zoo.training.run import Run, RunOptions
from disco_zoo.training.run_data import open_data

ROOT = Path(__file__).parents[2]
NUM_TRAIN, NUM_TEST, BATCH_SIZE = 26, 12, 8
STEPS_PER_EPOCH = 3  # 26 // 8: two images of each epoch are left over
CLASSES = ["red", "green", "blue"]


@register_model
def dropping_student(pretrained: bool = False, **options: Any) -> nn.Module:
    """A small network whose training draws random numbers: dropout and stochastic depth."""
    options = {"drop_rate": 0.3, "drop_path_rate": 0.3, **options}
    return timm.create_model("test_efficientnet", pretrained=False, **options)


def toy_images(number: int, *, seed: int, side: int = 16) -> list[Image.Image]:
    """Noise in which one channel is bright; image i is of class i % 3."""
    pixels = np.random.default_rng(seed).integers(0, 130, (number, side, side, 3))
    for index in range(number):
        pixels[index, :, :, index % 3] += 120
    return [Image.fromarray(rows.astype(np.uint8)) for rows in pixels]


def toy_parquet(
    folder: Path, *, num_train: int = NUM_TRAIN, num_test: int = NUM_TEST, broken: tuple[int, ...] = ()
) -> Path:
    """Write toy_train.parquet and toy_test.parquet; `broken` rows of the training images hold no image."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, number, seed in (("train", num_train, 0), ("test", num_test, 1)):
        cells = [
            {"bytes": encode(image), "path": f"{split}_{i}.png"}
            for i, image in enumerate(toy_images(number, seed=seed))
        ]
        for index in broken if split == "train" else ():
            cells[index]["bytes"] = b"no image"
        names = [CLASSES[i % 3] for i in range(number)]
        pq.write_table(pa.table({"image": cells, "label": names}), folder / f"toy_{split}.parquet")
    return folder / "toy_train.parquet"


def toy_values(method: str = "disco", **changes: Any) -> dict[str, Any]:
    """A recipe's values; `changes` are keys with two underscores for the dot, e.g. `optim__epochs=1`."""
    values: dict[str, Any] = {
        "name": f"toy_{method}",
        "target": "none",
        "cost": "a second",
        "reference": "none",
        "student": {"model": "test_efficientnet", "image_size": 32, "head_hidden_dim": 32},
        "data": {"id": "cifar10"},
        "views": {"recipe": "moco_v2"},
        "method": {"name": method, "queue_size": 20, "momentum": 0.9},
        "optim": {
            "optimizer": "sgd",
            "batch_size": BATCH_SIZE,
            "base_lr": 1.0,
            "weight_decay": 1e-4,
            "schedule": "cosine_step",
            "epochs": 2,
        },
        "log": {"log_every_steps": 1, "checkpoint_every_steps": 100, "knn_every_epochs": 0},
    }
    if method == "disco":
        values["teacher"] = {"source": "test_resnet", "pretrained": False, "image_size": 32}
        values["method"]["centre_teacher"] = True
    for path, value in changes.items():
        *parents, key = path.split("__")
        target = values
        for parent in parents:
            target = target.setdefault(parent, {})
        target[key] = value
    return values


def toy_recipe(method: str = "disco", **changes: Any) -> Recipe:
    return parse_recipe(toy_values(method, **changes), origin="toy")


def toy_recipe_file(folder: Path, method: str = "disco", **changes: Any) -> Path:
    path = folder / f"toy_{method}.yaml"
    path.write_text(dump_yaml(toy_values(method, **changes)), encoding="utf-8")
    return path


def train(
    recipe: Recipe, data: Path, folder: Path, *, steps: int | None = None, resume: bool = False, workers: int = 0
) -> dict[str, Any]:
    """Train in this process as `disco-zoo train` does; return the checkpoint."""
    options = RunOptions(device="cpu", workers=workers, resume=resume, max_steps=steps)
    run = Run(recipe, open_data(recipe, str(data)), folder, options, label="toy")
    try:
        run.train()
    finally:
        run.close()
    return checkpoint_of(folder)


def checkpoint_of(folder: Path) -> dict[str, Any]:
    """All that a resume rests on, without the time it took.

    By Python's own unpickler: torch's safe one, by which runs resume, takes as long for it as a toy run's step.
    """
    state: dict[str, Any] = torch.load(folder / "checkpoint.pt", weights_only=False)
    for name in ("seconds", "data_wait_seconds"):
        state["position"].pop(name)
    return state


def differences(a: Any, b: Any, path: str = "") -> list[str]:
    """Paths at which two checkpoints differ, tensors compared bit by bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        same = a.dtype == b.dtype and a.shape == b.shape and _bits(a) == _bits(b)
        return [] if same else [path]
    if isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            return [f"{path}: keys"]
        return [found for key in a for found in differences(a[key], b[key], f"{path}/{key}")]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        return [found for i, (x, y) in enumerate(zip(a, b, strict=True)) for found in differences(x, y, f"{path}/{i}")]
    return [] if a == b else [path]


def _bits(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def subprocess_environment() -> dict[str, str]:
    """For a disco-zoo of this checkout in another process: one thread, no network."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "helpers")]),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
    }


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "disco_zoo", *map(str, arguments)]
