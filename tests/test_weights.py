"""Weights are handed to timm verified or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file

from disco_zoo import weights
from disco_zoo.catalog import Weights, load_catalog
from disco_zoo.errors import Damaged, NotPublished, WeightsError

NAME = "disco_effb0.disco_lite0_cifar10"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def make_weights(path: Path, seed: int) -> dict[str, torch.Tensor]:
    """Write a headless EfficientNet-B0 with random values as fp16, and return its tensors as fp32."""
    torch.manual_seed(seed)
    model = timm.create_model("efficientnet_b0", num_classes=0)
    tensors = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    save_file(tensors, str(path))
    return {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}


def same_tensors(model: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> bool:
    own = model.state_dict()
    return all(torch.equal(own[key], value) for key, value in tensors.items())


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replace the weights entry of NAME for one test; bundled files are looked for in `tmp_path`."""

    def publish(name: str = NAME, **entry: Any) -> None:
        catalog = load_catalog()
        row = catalog.checkpoints[name].model_copy(update={"weights": Weights(**entry)})
        changed = catalog.model_copy(update={"checkpoints": catalog.checkpoints | {name: row}})
        monkeypatch.setattr(weights, "load_catalog", lambda: changed)

    monkeypatch.setattr(weights, "BUNDLED_FOLDER", tmp_path)
    return publish


@pytest.fixture
def bundled(tmp_path: Path, published: Callable[..., None]) -> tuple[Path, dict[str, torch.Tensor]]:
    """A bundled file for NAME: its path and tensors."""
    path = tmp_path / "b0.safetensors"
    tensors = make_weights(path, seed=1)
    published(source="bundled", file=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    return path, tensors


def test_sha256_of_agrees_with_a_known_value(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert weights.sha256_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("name", ["disco_effb0", NAME])
def test_bundled_weights_load_exactly(name: str, bundled: tuple[Path, dict[str, torch.Tensor]]) -> None:
    assert same_tensors(timm.create_model(name, pretrained=True), bundled[1])


def test_bundled_weights_load_under_a_new_head(bundled: tuple[Path, dict[str, torch.Tensor]]) -> None:
    model = timm.create_model(NAME, pretrained=True, num_classes=10)
    assert same_tensors(model, bundled[1])
    assert model.get_classifier().out_features == 10


def test_bundled_weights_load_for_features_only(bundled: tuple[Path, dict[str, torch.Tensor]]) -> None:
    model = timm.create_model(NAME, pretrained=True, features_only=True)
    assert torch.equal(model.state_dict()["conv_stem.weight"], bundled[1]["conv_stem.weight"])


@pytest.mark.parametrize("options", [{}, {"num_classes": 10}, {"features_only": True}])
def test_one_flipped_bit_is_noticed(options: dict[str, Any], bundled: tuple[Path, Any]) -> None:
    data = bytearray(bundled[0].read_bytes())
    data[-1000] ^= 1  # inside the last tensor: safetensors itself loads this without a word
    bundled[0].write_bytes(data)
    with pytest.raises(Damaged, match="pip install --force-reinstall"):
        timm.create_model(NAME, pretrained=True, **options)


def test_a_truncated_file_is_noticed(bundled: tuple[Path, Any]) -> None:
    bundled[0].write_bytes(bundled[0].read_bytes()[:-1])
    with pytest.raises(Damaged, match="damaged"):
        timm.create_model(NAME, pretrained=True)


def test_a_missing_bundled_file_says_so(bundled: tuple[Path, Any]) -> None:
    bundled[0].unlink()
    with pytest.raises(WeightsError, match=r"missing from this installation.*pip install"):
        timm.create_model(NAME, pretrained=True)


def test_without_pretrained_no_file_is_touched(bundled: tuple[Path, Any]) -> None:
    bundled[0].unlink()
    timm.create_model(NAME, pretrained=False)


@pytest.mark.parametrize("how", ["overlay", "dict"])
def test_the_callers_own_file_is_left_alone(how: str, tmp_path: Path, bundled: tuple[Path, Any]) -> None:
    bundled[0].unlink()
    own = make_weights(tmp_path / "own.safetensors", seed=2)
    file = {"file": str(tmp_path / "own.safetensors")}
    options = {"pretrained_cfg_overlay": file} if how == "overlay" else {"pretrained_cfg": file | {"num_classes": 0}}
    assert same_tensors(timm.create_model(NAME.split(".")[0], pretrained=True, **options), own)


def test_an_overlay_of_other_fields_is_still_verified(bundled: tuple[Path, Any]) -> None:
    bundled[0].write_bytes(bundled[0].read_bytes()[:-1])
    with pytest.raises(Damaged):
        timm.create_model(NAME, pretrained=True, pretrained_cfg_overlay={"crop_pct": 1.0})


def test_bundled_path_is_inside_the_package() -> None:
    assert weights.bundled_path("x.safetensors").parts[-4:] == (
        "disco_zoo",
        "assets",
        "weights",
        "x.safetensors",
    )


def test_every_bundled_file_of_the_catalog_is_there_and_right() -> None:
    rows = [row for row in load_catalog().checkpoints.values() if row.weights.source == "bundled"]
    for row in rows:
        path = weights.bundled_path(row.weights.file or "")
        assert weights.sha256_of(path) == row.weights.sha256
        assert row.weights.size_bytes in (None, path.stat().st_size)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("disco_effb0.mocov2_fmnist", "type: disco-zoo reproduce disco_effb0.mocov2_fmnist"),
        ("disco_effb0.mocov2_cifar10", "type: disco-zoo reproduce disco_effb0.mocov2_cifar10 --data DATA"),
        ("disco_r34", "authors' file DisCo-R50-R34.pth.tar, not yet converted"),
        ("disco_effb1.seed_swav_r152_in1k", "need the variant tf_efficientnet_b1"),
    ],
)
def test_unpublished_weights_say_what_to_type(name: str, words: str) -> None:
    with pytest.raises(NotPublished) as caught:
        timm.create_model(name, pretrained=True)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unpublished_weights_name_those_that_are(bundled: tuple[Path, Any]) -> None:
    with pytest.raises(NotPublished, match=f"Published: {NAME}"):
        timm.create_model("disco_effb0.mocov2_fmnist", pretrained=True)


def test_weights_of_a_variant_are_never_handed_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, published: Callable[..., None]
) -> None:
    name = "disco_effb0.seed_swav_r50w2_in1k"
    make_weights(tmp_path / "tf.safetensors", seed=3)
    published(name, source="bundled", file="tf.safetensors", sha256="0" * 64)
    with pytest.raises(NotPublished, match="variant tf_efficientnet_b0"):
        timm.create_model(name, pretrained=True)


class FakeHub:
    """Stands for `hf_hub_download`: hands out files in turn, or raises."""

    def __init__(self, *answers: Path | Exception) -> None:
        self.answers = list(answers)
        self.calls: list[dict[str, Any]] = []

    def __call__(self, **options: Any) -> str:
        self.calls.append(options)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)


@pytest.fixture
def hub_files(tmp_path: Path, published: Callable[..., None]) -> tuple[Path, Path, dict[str, torch.Tensor]]:
    """NAME is on the Hub: a good file, a damaged one, and the tensors."""
    good, bad = tmp_path / "model.safetensors", tmp_path / "bad.safetensors"
    tensors = make_weights(good, seed=4)
    bad.write_bytes(good.read_bytes()[:-1] + b"?")
    sha256 = hashlib.sha256(good.read_bytes()).hexdigest()
    published(source="hub", repo="org/b0", revision=COMMIT, file="model.safetensors", sha256=sha256)
    return good, bad, tensors


def test_hub_weights_come_from_the_pinned_commit(hub_files: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = FakeHub(hub_files[0])
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub)
    assert same_tensors(timm.create_model(NAME, pretrained=True, cache_dir="somewhere"), hub_files[2])
    call = hub.calls[0]
    assert (call["repo_id"], call["revision"], call["filename"]) == ("org/b0", COMMIT, "model.safetensors")
    assert (call["cache_dir"], call["force_download"]) == ("somewhere", False)


def test_a_damaged_cache_is_healed_once(hub_files: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = FakeHub(hub_files[1], hub_files[0])
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub)
    assert same_tensors(timm.create_model(NAME, pretrained=True), hub_files[2])
    assert [call["force_download"] for call in hub.calls] == [False, True]


@pytest.mark.parametrize("second", ["bad again", "unreachable"])
def test_damage_that_stays_is_reported(second: str, hub_files: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = hub_files[1] if second == "bad again" else ValueError("Force download failed")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", FakeHub(hub_files[1], answer))
    with pytest.raises(Damaged, match="damaged"):
        timm.create_model(NAME, pretrained=True)


def test_a_failed_download_is_one_line(hub_files: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", FakeHub(OSError("no way\nmore words")))
    with pytest.raises(WeightsError, match=r"Could not download .* from org/b0: no way") as caught:
        timm.create_model(NAME, pretrained=True)
    assert "\n" not in str(caught.value)
