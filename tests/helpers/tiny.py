"""Small networks, sources and files for the tests of the training core."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import timm
import torch
from PIL import Image
from torch import Tensor, nn

from disco_zoo.config.recipe import OptimSection
from disco_zoo.core.checkpoint import export_backbone
from disco_zoo.core.files import sha256_of
from disco_zoo.data.dataset import ImageSource
from disco_zoo.errors import UnreadableImage
from disco_zoo.models.encoder import Encoder
from disco_zoo.models.teacher import Teacher
from disco_zoo.models.teacher_source import LoadedTeacher
from disco_zoo.modules.momentum_contrast import projection_head

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
EMBED_DIM = 6


class TinyNet(nn.Module):
    """Convolution, BatchNorm, ReLU, average: a backbone with everything that can go wrong, 8 features wide."""

    num_features = 8

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)

    def forward(self, images: Tensor) -> Tensor:
        return torch.relu(self.bn(self.conv(images))).mean(dim=(2, 3))


class Probe(nn.Module):
    """Keeps its last input; its features are the channel means."""

    num_features = 3

    def __init__(self) -> None:
        super().__init__()
        self.seen = torch.empty(0)

    def forward(self, images: Tensor) -> Tensor:
        self.seen = images.clone()
        return images.mean(dim=(2, 3))


class TinySource(ImageSource):
    """Noise images of 20 x 24 pixels, drawn from their number; the listed ones are unreadable."""

    def __init__(self, num_images: int = 12, unreadable: tuple[int, ...] = ()) -> None:
        super().__init__("tiny", "train", [i % 3 for i in range(num_images)], ["a", "b", "c"])
        self.num_images, self.broken = num_images, unreadable

    def __len__(self) -> int:
        return self.num_images

    def encoded(self, index: int) -> Image.Image:
        if index in self.broken:
            raise UnreadableImage(index, self.path(index), "cut short")
        return Image.fromarray(np.random.default_rng(index).integers(0, 256, (20, 24, 3), dtype=np.uint8))

    def path(self, index: int) -> str:
        return f"{index}.png"

    def _hash_content(self, digest: hashlib._Hash) -> None:
        digest.update(b"tiny")


def tiny_encoder(seed: int = 0, image_size: int = 16, embed_dim: int = EMBED_DIM) -> Encoder:
    torch.manual_seed(seed)
    return Encoder(TinyNet(), projection_head(8, 10, embed_dim), image_size=image_size, mean=MEAN, std=STD)


def tiny_teacher(
    seed: int = 100, *, bn_mode: Literal["eval", "train"] = "eval", image_size: int = 16, queue: Tensor | None = None
) -> Teacher:
    """A frozen TinyNet whose BatchNorm statistics are not those of a fresh one."""
    torch.manual_seed(seed)
    backbone = TinyNet()
    backbone(torch.randn(8, 3, 16, 16))
    loaded = LoadedTeacher(
        "tiny",
        backbone,
        projection_head(8, 10, EMBED_DIM),
        EMBED_DIM,
        (0.3, 0.3, 0.3),
        (0.4, 0.4, 0.4),
        False,
        queue=queue,
    )
    return Teacher(loaded, image_size=image_size, bn_mode=bn_mode)


def view_batches(num_steps: int, batch: int = 4, size: int = 16) -> list[list[Tensor]]:
    """Two views uint8 (B, 3, S, S) for each step."""
    generator = torch.Generator().manual_seed(7)
    return [
        [torch.randint(0, 256, (batch, 3, size, size), generator=generator, dtype=torch.uint8) for _ in range(2)]
        for _ in range(num_steps)
    ]


def optim_section(**changes: Any) -> OptimSection:
    values = {"optimizer": "sgd", "batch_size": 4, "base_lr": 1.0, "weight_decay": 0.0, "epochs": 10}
    return OptimSection(**{**values, "schedule": "constant", **changes})


def moco_state(hidden: int = 512, embed_dim: int = 128, queue_size: int = 32) -> dict[str, Tensor]:
    """A ResNet-18 in the layout of MoCo's files: query and key encoder, two-layer head, queue."""
    torch.manual_seed(3)
    state: dict[str, Tensor] = {}
    for encoder in ("encoder_q", "encoder_k"):
        backbone = timm.create_model("resnet18", num_classes=0)
        for module in backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2.0)
        tensors = backbone.state_dict()
        head = nn.Sequential(nn.Linear(512, hidden), nn.ReLU(), nn.Linear(hidden, embed_dim))
        tensors |= {f"fc.{key}": tensor for key, tensor in head.state_dict().items()}
        state |= {f"module.{encoder}.{key}": tensor for key, tensor in tensors.items()}
    state["module.queue"] = nn.functional.normalize(torch.randn(embed_dim, queue_size), dim=0)
    state["module.queue_ptr"] = torch.zeros(1, dtype=torch.int64)
    return state


def write_moco_checkpoint(path: Path, state: dict[str, Tensor] | None = None, **extra: Any) -> Path:
    state = moco_state() if state is None else state
    torch.save({"epoch": 200, "arch": "resnet18", "state_dict": state, "optimizer": {}, **extra}, path)
    return path


def make_run_folder(folder: Path, **changes: Any) -> Path:
    """A finished run of a ResNet-18; `changes` falsify what run.json says of the student."""
    folder.mkdir()
    torch.manual_seed(0)
    export_backbone(
        timm.create_model("resnet18", num_classes=0), folder / "student.safetensors", half=True, metadata={}
    )
    student = {
        "model": "disco_r18",
        "architecture": "resnet18",
        "sha256": sha256_of(folder / "student.safetensors"),
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "image_size": 32,
        "resize_size": 32,
    }
    (folder / "run.json").write_text(json.dumps({"student": {**student, **changes}}))
    return folder
