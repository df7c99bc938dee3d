"""lightly-train's distillation of a timm teacher into timm's EfficientNet-B0. Needs lightly-train 0.18.

Two of its limits are lifted. Its first method takes DINOv2 and DINOv3 as teachers alone: `get_teacher` hands out timm's
network (the third takes timm's by itself). And its wrapper takes EfficientNet's last block, 320 numbers, for the
network's 1280, and stops.
"""

from __future__ import annotations

import argparse
import tempfile

import lightly_train
import timm
import torch
from contestant import Quota
from lightly_train._methods.distillation import distillation
from lightly_train._methods.distillationv3.distillationv3 import DistillationV3
from lightly_train._models.timm import timm as timm_wrapper

QUEUE = 1024  # its own choice for so few images
quota, steps = Quota(), 0


class Teacher(torch.nn.Module):
    """A frozen timm network as lightly-train's first distillation asks for one."""

    def __init__(self, name):
        super().__init__()
        self.network = timm.create_model(name, num_classes=0)
        self.embed_dim = self.network.num_features

    def forward(self, images):
        return self.network(images)


def whole_features(model):
    return lambda network, images: network.forward_features(images)


def counted(former):
    """The time from one step's beginning to the next one's is that of the whole step, with its data."""

    def training_step(self, batch, batch_idx):
        global steps
        if steps == 1:
            quota.ready()
        elif steps > 1:
            quota.step_done()
        steps += 1
        return former(self, batch, batch_idx)

    return training_step


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--method", choices=["distillationv1", "distillationv3"], default="distillationv1")
    parser.add_argument("--teacher", default="resnet50")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=64)
    given = parser.parse_args()
    distillation.get_teacher = lambda *_, **__: Teacher(given.teacher).eval().requires_grad_(False)
    first = given.method == "distillationv1"
    trained = distillation.Distillation if first else DistillationV3
    trained.training_step_impl = counted(trained.training_step_impl)
    method_args = {"queue_size": QUEUE}
    if not first:
        method_args.update(teacher=f"timm/{given.teacher}", teacher_args={"pretrained": False})
    timm_wrapper._get_forward_features_fn = whole_features
    with tempfile.TemporaryDirectory() as out:
        lightly_train.pretrain(
            out=out,
            overwrite=True,
            data=given.data,
            model="timm/efficientnet_b0",
            method=given.method,
            method_args=method_args,
            transform_args={"image_size": (given.size, given.size)},
            batch_size=given.batch_size,
            num_workers=0,
            epochs=1000,
            accelerator="cpu",
            optim="adamw",
            model_args={"pretrained": False},
        )


if __name__ == "__main__":
    main()
