"""Weights are handed to timm verified or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hub_server import TestHub
from safetensors.torch import save_file

from disco_zoo.errors import Damaged, NotPublished, WeightsError, WrongNetwork
from disco_zoo.weights import resolve as weights
from disco_zoo.weights import store
from disco_zoo.weights.bundled import bundled_path
from disco_zoo.weights.resolve import local_weights
from disco_zoo.zoo.catalog import load_catalog
from disco_zoo.zoo.schema import Weights

pytest_plugins = ("hub_fixtures",)
NAME = "disco_effb0.disco_lite0_cifar10"


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

    monkeypatch.setattr("disco_zoo.weights.bundled.BUNDLED_FOLDER", tmp_path)
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


def test_bundled_weights_load_exactly(bundled: tuple[Path, dict[str, torch.Tensor]]) -> None:
    assert same_tensors(timm.create_model(NAME, pretrained=True), bundled[1])


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
    assert bundled_path("x.safetensors").parts[-4:] == (
        "disco_zoo",
        "assets",
        "weights",
        "x.safetensors",
    )


def test_every_bundled_file_of_the_catalog_is_there_and_right() -> None:
    rows = [row for row in load_catalog().checkpoints.values() if row.weights.source == "bundled"]
    for row in rows:
        path = bundled_path(row.weights.file or "")
        assert weights.sha256_of(path) == row.weights.sha256
        assert row.weights.size_bytes in (None, path.stat().st_size)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("disco_effb0.mocov2_fmnist", "type: disco-zoo reproduce disco_effb0.mocov2_fmnist"),
        ("disco_effb0.mocov2_cifar10", "type: disco-zoo reproduce disco_effb0.mocov2_cifar10 --data DATA"),
        (
            "disco_r34",
            "DisCo-R50-R34.pth.tar, not installed here. Type: disco-zoo download disco_r34.disco_mocov2_r50_in1k",
        ),
        (
            "disco_effb1.seed_swav_r50_in1k",
            "type: disco-zoo convert FILE --as disco_effb1.seed_swav_r50_in1k --install",
        ),
    ],
)
def test_unpublished_weights_say_what_to_type(name: str, words: str) -> None:
    with pytest.raises(NotPublished) as caught:
        timm.create_model(name, pretrained=True)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unpublished_weights_name_those_that_are(bundled: tuple[Path, Any]) -> None:
    with pytest.raises(NotPublished, match=f"Published: .*{NAME}"):
        timm.create_model("disco_effb0.mocov2_fmnist", pretrained=True)


# --- installed by the user ---------------------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, torch.Tensor]]:
    monkeypatch.setenv("DISCO_ZOO_HOME", str(tmp_path / "home"))

    def put(name: str, network: str, tensors: dict[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
        torch.manual_seed(9)
        tensors = tensors or timm.create_model(network, num_classes=0).state_dict()
        store.install(
            name, network, lambda path: save_file(tensors, path), {"layout": "seed"}, lambda path: None or path.touch()
        )
        return tensors

    return put


def test_installed_weights_win_over_bundled_ones(bundled: Any, installed: Callable[..., Any]) -> None:
    own = installed(NAME, "efficientnet_b0")
    assert same_tensors(timm.create_model(NAME, pretrained=True), own)
    found = local_weights(NAME)
    assert found is not None
    assert (found.source, found.network, found.facts) == ("installed", "efficientnet_b0", {"layout": "seed"})


def test_an_official_checkpoint_loads_once_installed(installed: Callable[..., Any]) -> None:
    name = "disco_effb0.seed_swav_r50w2_in1k"
    assert local_weights(name) is None
    for network in ("tf_efficientnet_b0", "disco_effb0_pad224"):  # the first: by a version that did not freeze padding
        own = installed(name, network)
        model = timm.create_model(name, pretrained=True)
        assert same_tensors(model, own)
        assert model.pretrained_cfg["architecture"] == "disco_effb0_pad224"
        assert type(model.conv_stem).__name__ == "FrozenSameConv"


def test_damaged_installed_weights_are_reported_not_skipped(bundled: Any, installed: Callable[..., Any]) -> None:
    installed(NAME, "efficientnet_b0")
    path = store.installed(NAME).path  # type: ignore[union-attr]
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(Damaged, match=rf"has another sha256. Delete the folder .* and type: disco-zoo download {NAME}"):
        timm.create_model(NAME, pretrained=True)


def test_weights_installed_for_another_network_are_refused(installed: Callable[..., Any]) -> None:
    installed("disco_effb0.seed_swav_r50w2_in1k", "efficientnet_b0")
    with pytest.raises(Damaged, match="are for efficientnet_b0, not disco_effb0_pad224"):
        timm.create_model("disco_effb0.seed_swav_r50w2_in1k", pretrained=True)


@pytest.mark.parametrize("options", [{}, {"num_classes": 10}, {"features_only": True}, {"in_chans": 1}])
def test_backbone_keys_are_strict_where_timm_is_loose(
    options: dict[str, Any], bundled: Any, published: Callable[..., None]
) -> None:
    """timm loads a file without a whole stage in silence as soon as the head differs; the right sha256 is no help."""
    path, tensors = bundled
    save_file({key: value for key, value in tensors.items() if not key.startswith("blocks.3.")}, path)
    published(source="bundled", file=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(WrongNetwork, match=r"does not fit efficientnet_b0: missing \(\d+\) blocks.3.0"):
        timm.create_model(NAME, pretrained=True, **options)


# --- the Hub, a real server; its faults are in test_hub.py ---------------------------------------------------------


@pytest.fixture
def on_the_hub(hub: TestHub, tmp_path: Path, published: Callable[..., None]) -> dict[str, torch.Tensor]:
    tensors = make_weights(tmp_path / "model.safetensors", seed=4)
    content = (tmp_path / "model.safetensors").read_bytes()
    commit = hub.store.add_repo("org/b0", {"model.safetensors": content})
    sha256 = hashlib.sha256(content).hexdigest()
    published(source="hub", repo="org/b0", revision=commit, file="model.safetensors", sha256=sha256)
    return tensors


def test_hub_weights_are_fetched_once_and_then_need_no_hub(
    hub: TestHub, on_the_hub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert local_weights(NAME) is None
    assert same_tensors(timm.create_model(NAME, pretrained=True), on_the_hub)
    assert hub.count("GET", "/resolve/") == 1
    asked = len(hub.requests)
    assert same_tensors(timm.create_model(NAME, pretrained=True, num_classes=10), on_the_hub)
    assert len(hub.requests) == asked
    hub.down()
    try:
        assert same_tensors(timm.create_model(NAME, pretrained=True), on_the_hub)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        assert same_tensors(timm.create_model(NAME, pretrained=True), on_the_hub)
    finally:
        hub.up()
    found = local_weights(NAME)
    assert found is not None
    assert found.source == "hub"


def test_the_cache_folder_is_the_callers(hub: TestHub, on_the_hub: Any, tmp_path: Path) -> None:
    timm.create_model(NAME, pretrained=True, cache_dir=tmp_path / "elsewhere")
    assert list((tmp_path / "elsewhere").rglob("model.safetensors"))
    assert not (tmp_path / "hub").exists()


def test_hub_weights_of_a_variant_build_the_variant(
    hub: TestHub, tmp_path: Path, published: Callable[..., None]
) -> None:
    tensors = make_weights(tmp_path / "model.safetensors", seed=4)  # the same keys and shapes
    content = (tmp_path / "model.safetensors").read_bytes()
    commit = hub.store.add_repo("org/b0-tf", {"model.safetensors": content})
    sha256 = hashlib.sha256(content).hexdigest()
    name = "disco_effb0.seed_swav_r50w2_in1k"
    published(name, source="hub", repo="org/b0-tf", revision=commit, file="model.safetensors", sha256=sha256)
    model = timm.create_model(name, pretrained=True)
    assert same_tensors(model, tensors)
    assert type(model.conv_stem).__name__ == "FrozenSameConv"
