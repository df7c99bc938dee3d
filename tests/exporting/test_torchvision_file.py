"""torchvision's own networks load what `--keys torchvision` writes, and give timm's features."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import load_file
from slow_params import slow_but
from torch import nn

from disco_zoo.cli import main
from disco_zoo.errors import CannotExport
from disco_zoo.exporting.subject import Subject, subject_of
from disco_zoo.exporting.torch_file import NETWORKS, write_torchvision
from disco_zoo.models.load import load_model

pytestmark = pytest.mark.usefixtures("one_thread")


def calibrated(name: str) -> Subject:
    """Random weights, and statistics of BatchNorm that are nobody's default."""
    named = load_model(name, pretrained=False)
    generator = torch.Generator().manual_seed(0)
    for module in named.backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in ((module.running_var, 0.01, 2.0), (module.weight.data, 0.5, 1.5)):
                tensor.uniform_(low, high, generator=generator)
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.bias.data.normal_(0, 0.1, generator=generator)
    return subject_of(named, image_size=64)


NAMES = ["resnet18", "efficientnet_b0", "mobilenetv2_100", "mobilenetv3_large_100"]


@pytest.mark.parametrize("name", slow_but(NAMES, NAMES[:2]))
def test_torchvisions_network_gives_our_features(name: str, tmp_path: Path) -> None:
    subject, path = calibrated(name), tmp_path / "w.pth"
    assert write_torchvision(subject, name, path, 1e-4) < 1e-5
    network = getattr(torchvision.models, NETWORKS[name])(weights=None)
    missing, unexpected = network.load_state_dict(torch.load(path, weights_only=True), strict=False)
    assert unexpected == []
    last = "fc" if name.startswith("resnet") else f"classifier.{len(network.classifier) - 1}"
    assert missing == [f"{last}.weight", f"{last}.bias"]
    parent, _, child = last.rpartition(".")
    setattr(network.get_submodule(parent), child, nn.Identity())
    images = subject.example(3)
    with torch.no_grad():
        expected = subject.network(images)
        torch.testing.assert_close(network.eval()(images), expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_a_detector_of_torchvision_takes_the_file_as_its_body(tmp_path: Path) -> None:
    subject, path = calibrated("resnet18"), tmp_path / "w.safetensors"
    write_torchvision(subject, "resnet18", path, 1e-4)
    backbone = torchvision.models.detection.backbone_utils.resnet_fpn_backbone(backbone_name="resnet18", weights=None)
    tensors = {key: value for key, value in load_file(path).items() if not key.endswith("num_batches_tracked")}
    missing, unexpected = backbone.body.load_state_dict(tensors, strict=False)
    assert (missing, unexpected) == ([], [])


def test_a_network_that_only_looks_alike_is_refused(tmp_path: Path) -> None:
    """The same tensors, another padding."""
    with pytest.raises(CannotExport, match="differs from PyTorch"):
        write_torchvision(calibrated("tf_efficientnet_b0"), "efficientnet_b0", tmp_path / "w.pth", 1e-4)
    assert [*tmp_path.iterdir()] == []


def test_what_torchvisions_networks_do_not_do_is_refused_with_what_to_type(tmp_path: Path) -> None:
    subject = calibrated("resnet18")
    for asked, words in (
        (subject_of(subject.named, image_size=64, normalise_inside=True), "Leave out --normalise-inside"),
        (replace(subject, label_names=("cat", "dog")), "Add --features"),
    ):
        with pytest.raises(CannotExport, match=words) as caught:
            write_torchvision(asked, "resnet18", tmp_path / "w.pth", 1e-4)
        assert "\n" not in str(caught.value)
    assert [*tmp_path.iterdir()] == []


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", "disco_effb0.disco_lite0_cifar10", "--keys", "torchvision", "--out", "b0.pth"]) == 0
    assert "b0.pth: 16." in capsys.readouterr().out
    assert main(["export", "disco_effb0", "--keys", "torchvision", "--out", "b0.onnx"]) == 2
    assert "must end in .pth for --keys torchvision" in capsys.readouterr().err
    assert main(["export", "disco_effb0", "--keys", "torchvision", "--format", "onnx"]) == 2
    assert main(["export", "lite0", "--keys", "torchvision", "--out", "l.pth"]) == 2
    assert "torchvision has no network like" in capsys.readouterr().err
