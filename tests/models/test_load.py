"""Models by the names people type: the same seed is the same network, and every failure is one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from finetune_makers import toy_settings
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled
from tiny import write_moco_checkpoint
from tiny_runs import toy_parquet

from disco_zoo.cli import main
from disco_zoo.errors import (
    BadCheckpoint,
    DiscoZooError,
    HubUnreachable,
    NotPublished,
    Offline,
    UnknownName,
    WeightsError,
)
from disco_zoo.evaluation.subject import load_subject
from disco_zoo.models import timm_network
from disco_zoo.models.encoder import backbone_fingerprint
from disco_zoo.models.load import load_model
from disco_zoo.tasks.finetune.start import build_start
from disco_zoo.weights import hub

RANDOM = "test_efficientnet"
PUBLISHED = "disco_effb0.disco_lite0_cifar10"


def fingerprint(seed: int, name: str = RANDOM) -> str:
    return backbone_fingerprint(load_model(name, pretrained=False, seed=seed).backbone)


def test_the_same_seed_gives_the_same_random_network_whatever_was_drawn_before() -> None:
    first = fingerprint(3)
    torch.rand(5)
    assert fingerprint(3) == first
    assert fingerprint(4) != first


@pytest.mark.parametrize(("model", "pretrained"), [(RANDOM, False), ("disco_effb0", True), ("test_vit", False)])
def test_loading_leaves_the_global_generator_as_it_was(model: str, pretrained: bool) -> None:
    before = torch.get_rng_state()
    load_model(model, pretrained=pretrained)
    assert torch.equal(torch.get_rng_state(), before)


def test_evaluate_and_finetune_start_from_one_random_network(tmp_path: Path) -> None:
    data = str(toy_parquet(tmp_path))
    evaluated = load_subject(model=RANDOM, data=data, untrained=True, seed=3, image_size=32)
    assert backbone_fingerprint(evaluated.backbone) == fingerprint(3)
    network = build_start(toy_settings(seed=3), ["a", "b"]).classifier.network
    wanted = evaluated.backbone.state_dict()
    found = {key: tensor for key, tensor in network.state_dict().items() if key in wanted}
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in wanted.items())


def test_short_names_of_the_zoo() -> None:
    found, full = load_model("effb0"), load_model("disco_effb0")
    assert found.name == "effb0"
    assert backbone_fingerprint(found.backbone) == backbone_fingerprint(full.backbone)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("disco_effb", "Did you mean 'disco_effb"),
        ("effb0.nope", "'effb0.nope' is no zoo model, timm model, run folder or file."),
        ("disco_effb0.nope", "disco_effb0 has no weights 'nope'."),
        ("resnet18.a1_in1", "Did you mean 'resnet18.a1_in1k'?"),
        ("nothing_here.pth", "there is no file nothing_here.pth."),
    ],
)
def test_names_that_there_are_not(model: str, message: str) -> None:
    with pytest.raises(UnknownName) as error:
        load_model(model)
    assert message in str(error.value)
    assert "teacher.source" not in str(error.value)


def test_a_missing_file_is_looked_for_beside(tmp_path: Path) -> None:
    (tmp_path / "student.safetensors").touch()
    with pytest.raises(UnknownName, match=r"Did you mean 'student\.safetensors'"):
        load_model(str(tmp_path / "studnt.safetensors"))


def test_a_checkpoint_file_may_be_called_anything(tmp_path: Path) -> None:
    for name in ("model_best", "last.ckpt"):
        found = load_model(str(write_moco_checkpoint(tmp_path / name)))
        assert (found.network, found.feature_dim) == ("resnet18", 512)


def test_a_tag_without_weights_still_has_random_ones() -> None:
    name = "disco_effb0.disco_mocov2_r50_in1k"
    with pytest.raises(NotPublished, match="disco-zoo download"):
        load_model(name)
    assert load_model(name, pretrained=False).network == name


def unreachable() -> Exception:
    error = LocalEntryNotFoundError("An error happened. Please check your connection")
    error.__cause__ = ConnectionError("Name or service not known")
    return error


@pytest.mark.parametrize(
    ("raised", "kind", "message"),
    [
        (unreachable(), HubUnreachable, "Cannot reach https://.*so resnet18 was not fetched"),
        (OfflineModeIsEnabled("offline"), Offline, "resnet18 is not in the cache .* offline mode is on"),
        (RuntimeError("No pretrained\nweights"), WeightsError, "resnet18 cannot be loaded: No pretrained weights"),
    ],
)
def test_what_timm_and_the_hub_say_becomes_one_line(
    raised: Exception, kind: type[DiscoZooError], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(timm_network, "create_for_any_size", fail)
    monkeypatch.setattr(hub, "why_no_network", lambda: None)  # here, too, as where there is one
    with pytest.raises(kind, match=message) as error:
        load_model("resnet18")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"future": 1, "disco_zoo": {"disco_zoo_version": "99.0", "future": [1]}},  # of a later version of ours
        {"pretrained_cfg": {"future": 1}},  # of a later timm
    ],
)
def test_a_published_folder_is_a_model_whatever_version_wrote_it(
    change: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["publish", PUBLISHED, "--to", "lab", "--dry-run", "--out", "folder"]) == 0
    config = json.loads((tmp_path / "folder" / "config.json").read_text())
    for key, value in change.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) else value
    (tmp_path / "folder" / "config.json").write_text(json.dumps(config))
    for name in ("folder", "local-dir:folder"):
        found = load_model(name)
        assert backbone_fingerprint(found.backbone) == backbone_fingerprint(load_model(PUBLISHED).backbone)
        assert (found.network, found.image_size, found.feature_dim) == ("efficientnet_b0", 64, 1280)


def test_a_published_folder_of_a_network_that_timm_does_not_have_is_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    config = {"architecture": "efficientnet_z9", "num_classes": 0, "pretrained_cfg": {}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(BadCheckpoint, match="efficientnet_z9, which timm does not have"):
        load_model(str(folder))
