"""The classifier's folder: timm loads it, sees the same pixels, and gives the same scores; damage is told."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from finetune_makers import tensors_of, toy_settings
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_runs import differences

import disco_zoo.models.classifier_dir as classifier_folder
from disco_zoo.errors import BadCheckpoint, BadRunFolder, DiscoZooError
from disco_zoo.models.classifier_dir import (
    Classifier,
    backbone_of,
    crop_share,
    find_classifier_folder,
    read_classifier,
    require_storable,
    write_classifier,
)
from disco_zoo.tasks.finetune.start import build_start
from disco_zoo.transforms.eval import eval_transform, normalize

NAMES = ("cat", "dog", "owl")


def make(model: str = "test_efficientnet", size: int = 32) -> Classifier:
    return build_start(toy_settings(model, image_size=size), NAMES).classifier


def write(folder: Path, classifier: Classifier) -> Path:
    write_classifier(folder, classifier, facts={"name": "toy"}, card="# toy\n", description="toy")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("folder") / "model", make())


@pytest.mark.parametrize(
    ("model", "size"),
    [("test_efficientnet", 32), ("test_resnet", 48), ("test_vit", 64), ("test_convnext", 32), ("disco_mobv3", 32)],
)
def test_timm_loads_the_folder_with_labels_and_the_same_scores(model: str, size: int, tmp_path: Path) -> None:
    classifier = make(model, size)
    write(tmp_path / "model", classifier)
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"README.md", "config.json", "model.safetensors"}
    loaded: Any = timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True).eval()
    assert tuple(loaded.pretrained_cfg["label_names"]) == NAMES
    assert loaded.num_classes == 3
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        assert torch.allclose(loaded(images), classifier.network.eval()(images), atol=1e-5)


@pytest.mark.parametrize("shape", [(40, 52), (33, 33), (90, 31)])
def test_timms_transform_sees_the_pixels_that_were_measured(shape: tuple[int, int], folder: Path) -> None:
    classifier = read_classifier(folder)
    loaded: Any = timm.create_model(f"local-dir:{folder}", pretrained=True)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(loaded))
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    ours = eval_transform(classifier.image_size, classifier.resize_size)(image)[None]
    expected = normalize(ours, classifier.mean, classifier.std)[0]
    assert torch.allclose(transform(image), expected, atol=1e-5)


@pytest.mark.parametrize("size", [16, 32, 63, 64, 96, 224, 384])
@pytest.mark.parametrize("margin", [0, 1, 2, 5, 37])
def test_crop_share_gives_timm_the_same_resize(size: int, margin: int) -> None:
    assert math.floor(size / crop_share(size, size + margin)) == size + margin


def test_what_is_read_is_what_was_written(folder: Path) -> None:
    classifier, read = make(), read_classifier(folder)
    assert differences(tensors_of(read), tensors_of(classifier)) == []
    assert (read.label_names, read.image_size, read.resize_size) == (NAMES, 32, 37)
    assert (read.mean, read.std) == (classifier.mean, classifier.std)
    assert json.loads((folder / "config.json").read_text())["disco_zoo"] == {"name": "toy"}


def test_run_folder_stands_for_its_classifier(folder: Path) -> None:
    assert find_classifier_folder(folder) == folder
    assert find_classifier_folder(folder.parent) == folder
    assert find_classifier_folder(folder.parent.parent) is None


def test_backbone_is_the_network_without_its_head(folder: Path) -> None:
    network, _ = backbone_of(folder)
    images = torch.randn(2, 3, 32, 32)
    full: Any = read_classifier(folder).network.eval()
    with torch.no_grad():
        assert torch.allclose(full.get_classifier()(network.eval()(images)), full(images), atol=1e-5)


def test_writing_again_replaces_and_a_failure_leaves_the_former(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = write(tmp_path / "model", make())
    before = (target / "model.safetensors").read_bytes()
    changed = make()
    with torch.no_grad():
        next(changed.network.parameters()).add_(1.0)
    with monkeypatch.context() as patch:

        def full(*_: Any, **__: Any) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(classifier_folder, "save_file", full)
        with pytest.raises(BadRunFolder, match="no space left"):
            write(target, changed)
    assert (target / "model.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    write(target, changed)
    assert (target / "model.safetensors").read_bytes() != before


def test_network_and_copy_are_compared_in_one_memory_layout(tmp_path: Path) -> None:
    """In two layouts an EfficientNet-B0 after 40 steps from a random start differed by 0.2 %, from rounding alone."""
    layouts = []

    def note(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if isinstance(module, torch.nn.Conv2d) and module.weight.shape[1] == 3:
            tensors = (module.weight, inputs[0])
            layouts.append(all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in tensors))

    classifier = make()
    classifier.network.to(memory_format=torch.contiguous_format)
    hook = torch.nn.modules.module.register_module_forward_pre_hook(note)
    try:
        write(tmp_path / "model", classifier)
    finally:
        hook.remove()
    assert layouts == [True, True]


def test_folder_that_gives_other_scores_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoilt(tensors: dict[str, torch.Tensor], *rest: Any, **options: Any) -> None:
        save_file(
            {key: value * 2 if "classifier" in key else value for key, value in tensors.items()}, *rest, **options
        )

    monkeypatch.setattr(classifier_folder, "save_file", spoilt)
    classifier = make()
    with torch.no_grad():
        for parameter in classifier.network.parameters():
            parameter.add_(0.05)
    with pytest.raises(RuntimeError, match="does not give the scores"):
        write(tmp_path / "model", classifier)
    assert [*tmp_path.iterdir()] == []


# --- a classifier as the start ---


def start(folder: Path, names: tuple[str, ...], **changes: Any) -> Any:
    return build_start(toy_settings(str(folder), untrained=False, **changes), names)


def test_a_classifier_goes_on_with_its_head_on_the_same_classes(folder: Path) -> None:
    begun = start(folder, NAMES)
    assert begun.continues
    assert differences(tensors_of(begun.classifier), tensors_of(make())) == []


def test_other_classes_need_a_new_head_which_keeps_the_backbone(folder: Path) -> None:
    with pytest.raises(DiscoZooError, match="they differ in: fox, owl"):
        start(folder, ("cat", "dog", "fox"))
    begun = start(folder, ("cat", "dog", "fox", "hen"), new_head=True)
    assert not begun.continues
    assert begun.classifier.label_names == ("cat", "dog", "fox", "hen")
    found, former = tensors_of(begun.classifier), tensors_of(make())
    assert {
        key for key in former if former[key].shape != found[key].shape or not torch.equal(former[key], found[key])
    } == {"classifier.weight", "classifier.bias"}


def test_random_weights_of_a_folder_are_refused(folder: Path) -> None:
    with pytest.raises(DiscoZooError, match="is its weights"):
        build_start(toy_settings(str(folder), untrained=True), NAMES)


def test_size_that_the_network_cannot_look_at_is_told_with_one_it_can() -> None:
    with pytest.raises(DiscoZooError, match=r"Type: --image-size \d+"):
        make("test_vit", 33)


# --- damage ---


def damaged(folder: Path, tmp_path: Path, **config: Any) -> Path:
    copy = tmp_path / "copy"
    copy.mkdir()
    values = json.loads((folder / "config.json").read_text()) | config
    (copy / "config.json").write_text(json.dumps(values))
    (copy / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    return copy


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"architecture": "no_such_net"}, "network no_such_net, which timm does not have"),
        ({"architecture": "test_resnet"}, "does not fit its config.json"),
        ({"label_names": ["a", "b"]}, "says 3 classes and names 2"),
        ({"pretrained_cfg": 3}, "does not describe a timm model"),
        ({"model_args": {"no_such": 1}}, "does not fit test_efficientnet"),
    ],
)
def test_config_that_does_not_fit_is_told(config: dict[str, Any], words: str, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match=words) as error:
        read_classifier(damaged(folder, tmp_path, **config))
    assert "\n" not in str(error.value)


def test_damaged_weights_are_told(folder: Path, tmp_path: Path) -> None:
    copy = damaged(folder, tmp_path)
    # Copies: the file, which would otherwise be mapped into memory, is overwritten below.
    tensors = {key: value.clone() for key, value in load_file(copy / "model.safetensors").items()}
    (copy / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(BadCheckpoint, match="no safetensors file"):
        read_classifier(copy)
    save_file({**tensors, "classifier.bias": torch.full((3,), float("nan"))}, copy / "model.safetensors")
    with pytest.raises(BadCheckpoint, match=r"classifier.bias holds NaN"):
        read_classifier(copy)
    save_file({key: value for key, value in tensors.items() if "bn1" not in key}, copy / "model.safetensors")
    with pytest.raises(BadCheckpoint, match="does not fit"):
        read_classifier(copy)


def test_network_that_timm_could_not_build_again_is_told_before_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_storable(tmp_path, make("test_vit", 64), "test_vit")
    assert [*tmp_path.iterdir()] == []
    monkeypatch.setattr(classifier_folder, "_model_args", lambda _: {})
    with pytest.raises(DiscoZooError, match="test_vit at 64 px cannot be stored") as error:
        require_storable(tmp_path, make("test_vit", 64), "test_vit")
    assert "\n" not in str(error.value)
    assert [*tmp_path.iterdir()] == []


def test_labels_of_the_classifier_decide_the_order(folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "m", replace(make(), label_names=("x", "y", "z")))
    assert read_classifier(tmp_path / "m").label_names == ("x", "y", "z")
