"""Files as the authors' code saves them: each layout of spec 6 around given networks."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

State = dict[str, Tensor]


def prefixed(prefix: str, state: Mapping[str, Tensor]) -> State:
    return {f"{prefix}{key}": value for key, value in state.items()}


def mlp(inputs: int, hidden: int, outputs: int = 128, *, norm: bool = False, seed: int = 7) -> State:
    """A head of two layers, with BatchNorm between them for SwAV and SimCLR."""
    torch.manual_seed(seed)
    middle = [nn.BatchNorm1d(hidden)] if norm else []
    head = nn.Sequential(nn.Linear(inputs, hidden), *middle, nn.ReLU(), nn.Linear(hidden, outputs))
    for module in middle:
        for tensor in (module.weight, module.running_var):
            nn.init.uniform_(tensor, 0.5, 2.0)
        for tensor in (module.bias, module.running_mean):
            nn.init.normal_(tensor)
    return head.state_dict()


def queue_of(columns: int = 32) -> State:
    generator = torch.Generator().manual_seed(11)
    queue = nn.functional.normalize(torch.randn(128, columns, generator=generator), dim=0)
    return {"module.queue": queue, "module.queue_ptr": torch.zeros(1, dtype=torch.int64)}


def training_file(state: State, **extra: Any) -> dict[str, Any]:
    """What MoCo's training loop saves, and with it most of the field's."""
    optimizer = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.03, "params": [0]}]}
    return {"epoch": 200, "arch": "anything", "state_dict": state, "optimizer": optimizer, **extra}


def moco(encoder: State) -> dict[str, Any]:
    twin = {key: value + 1 if value.is_floating_point() else value for key, value in encoder.items()}
    state = prefixed("module.encoder_q.", encoder) | prefixed("module.encoder_k.", twin)
    return training_file(state | queue_of())


def disco(student: State, teacher: State) -> dict[str, Any]:
    state = dict(moco(student)["state_dict"])
    state |= prefixed("module.teacher_encoder_q.", teacher) | prefixed("module.teacher_encoder_k.", teacher)
    return training_file(state)


def seed(student: State, teacher: State, small_queue: bool = False) -> dict[str, Any]:
    state = prefixed("module.student.", student) | prefixed("module.teacher.", teacher) | queue_of()
    if small_queue:
        state["module.small_queue"] = state["module.queue"].clone()
    return training_file(state)


def bingo(student: State, teacher: State) -> dict[str, Any]:
    """Also older files of SEED."""
    return training_file(prefixed("module.encoder_q.", student) | prefixed("module.encoder_k.", teacher) | queue_of())


def ssl_small(encoder: State, kept_student: State | None = None) -> dict[str, Any]:
    state = dict(moco(encoder)["state_dict"])
    return training_file(state | prefixed("module.student.", kept_student or {}))


def swav_teacher(encoder: State) -> State:
    """A bare dict."""
    return prefixed("module.", encoder)


def simclr_of_seeds_list(encoder: State) -> dict[str, Any]:
    return {"model": prefixed("module.module.module.", encoder), "epoch": 200}


def simclr(backbone: State, head: State) -> dict[str, Any]:
    state = prefixed("convnet.", backbone) | prefixed("projection.", head)
    return {"state_dict": state, "hparams": {"lr": 2.4, "arch": "resnet50"}}


def compress(student: State) -> dict[str, Any]:
    options = argparse.Namespace(arch="resnet18", epochs=130, lr=0.01)
    return {"opt": options, "model": prefixed("module.", student), "optimizer": {"state": {}}, "epoch": 130}


def dino(student: State, teacher: State) -> dict[str, Any]:
    head = {"head.mlp.0.weight": torch.zeros(4, 192), "head.last_layer.weight_g": torch.ones(4, 1)}
    return {
        "student": prefixed("module.", prefixed("backbone.", student) | head),
        "teacher": prefixed("backbone.", teacher) | head,
        "optimizer": {"state": {}},
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_tiny"),
        "dino_loss": {"center": torch.zeros(1, 4)},
    }


def moco_v3(encoder: State) -> dict[str, Any]:
    own = encoder | {"head.0.weight": torch.zeros(8, 192), "head.1.running_mean": torch.zeros(8)}
    predictor = {"module.predictor.0.weight": torch.zeros(8, 8)}
    state = prefixed("module.base_encoder.", own) | prefixed("module.momentum_encoder.", own) | predictor
    return training_file(state)


def write(path: Path, container: Any, *, legacy: bool = False) -> Path:
    """`legacy`: the format of torch before 1.6."""
    torch.save(container, path, _use_new_zipfile_serialization=not legacy)
    return path
