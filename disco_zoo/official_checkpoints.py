"""Official checkpoint files, read without running their pickles and recognised by keys and shapes.

Now: the MoCo layout (`methods.md` 6), which MoCo's own and DisCo's teachers use. A file that matches no
layout, or only half of one, is refused with the keys that are wrong.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from disco_zoo.errors import BadTeacher
from disco_zoo.modules import projection_head

QUERY_PREFIX = "module.encoder_q."
# (bottleneck, blocks per stage) tells the five ResNets of the papers apart, whatever the file is called.
_RESNETS = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
    (True, (3, 8, 36, 3)): "resnet152",
}


@dataclass(frozen=True)
class OfficialEncoder:
    """A backbone and head as found in a file.

    Attributes:
        architecture: timm's name of the backbone.
        backbone: state dict without the classifier.
        head: the projection head with its weights.
        embed_dim: width of the head's output.
        queue: the file's queue as rows (K, D), or None.
    """

    architecture: str
    backbone: dict[str, Tensor]
    head: torch.nn.Sequential
    embed_dim: int
    queue: Tensor | None


def load_moco_checkpoint(path: Path) -> OfficialEncoder:
    """Read a MoCo-v2 checkpoint (`.pth.tar`) and take its query encoder.

    Raises:
        BadTeacher: not readable without running code, not in MoCo's layout, or an unknown ResNet.
    """
    state = _state_dict(path)
    query = {k.removeprefix(QUERY_PREFIX): v for k, v in state.items() if k.startswith(QUERY_PREFIX)}
    if not query:
        found = ", ".join(sorted({k.split(".")[0] for k in state})[:5])
        raise BadTeacher(f"{path.name} is not in MoCo's layout: no key starts with '{QUERY_PREFIX}' (found {found})")
    head_state = {k.removeprefix("fc."): v for k, v in query.items() if k.startswith("fc.")}
    backbone = {k: v for k, v in query.items() if not k.startswith("fc.")}
    if set(head_state) != {"0.weight", "0.bias", "2.weight", "2.bias"}:
        raise BadTeacher(f"{path.name}: the head is not MoCo-v2's fc.0 and fc.2 (found {sorted(head_state)})")
    hidden, width = head_state["0.weight"].shape
    embed_dim = head_state["2.weight"].shape[0]
    head = projection_head(width, hidden, embed_dim)
    try:
        head.load_state_dict(head_state)
    except RuntimeError as error:
        raise BadTeacher(f"{path.name}: the shapes of fc.0 and fc.2 do not fit each other") from error
    queue = state.get("module.queue")
    return OfficialEncoder(
        _resnet_name(backbone, path),
        backbone,
        head,
        embed_dim,
        None if queue is None else queue.T.contiguous(),
    )


def _state_dict(path: Path) -> dict[str, Tensor]:
    try:
        file = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise BadTeacher(f"{path} does not exist. Give the teacher's file with --set teacher.source=PATH") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError) as error:
        if "GLOBAL" in str(error):  # torch's word for a class or function outside its list
            raise BadTeacher(
                f"{path.name} holds more than tensors and plain values: refused, it could run code"
            ) from error
        raise BadTeacher(f"{path.name} is truncated or no PyTorch file. Download it again") from error
    state = file.get("state_dict") if isinstance(file, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise BadTeacher(f"{path.name} has no 'state_dict' of tensors: this is not a MoCo checkpoint")
    return state


def _resnet_name(backbone: dict[str, Tensor], path: Path) -> str:
    def blocks(stage: int) -> int:
        return len({k.split(".")[1] for k in backbone if k.startswith(f"layer{stage}.")})

    shape = ("layer1.0.conv3.weight" in backbone, tuple(blocks(stage) for stage in (1, 2, 3, 4)))
    if shape not in _RESNETS:
        raise BadTeacher(f"{path.name}: no ResNet of the papers has stages of {shape[1]} blocks")
    return _RESNETS[shape]
