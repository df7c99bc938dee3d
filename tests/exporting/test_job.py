"""Exported files compute what PyTorch does, in any batch, or are not kept."""

from __future__ import annotations

import itertools
import json

import onnx
import pytest
import torch
from embed_makers import tiny_named
from slow_params import slow_but
from tiny import TinyNet
from torch import Tensor

from disco_zoo.cli import main
from disco_zoo.errors import CannotExport, CannotWrite
from disco_zoo.exporting import onnx_file, torch_file
from disco_zoo.exporting.onnx_file import metadata, write_onnx
from disco_zoo.exporting.subject import largest_difference, subject_of
from disco_zoo.exporting.torch_file import FACTS_FILE, write_torch
from disco_zoo.models.encoder import backbone_fingerprint
from disco_zoo.models.onnx_network import runner
from disco_zoo.transforms.eval import normalize

pytestmark = pytest.mark.usefixtures("one_thread")


class Branching(TinyNet):
    """What no graph can follow: the pixels decide which way it goes."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) if images.mean() > 0 else -super().forward(images)


class Noisy(TinyNet):
    """Assigns an attribute while it is followed, of which torch.export warns at length."""

    def forward(self, images: Tensor) -> Tensor:
        self.seen = images.mean()
        return super().forward(images)


class LikesPairs(TinyNet):
    """Right in the batch that the exporter sees, and of a fixed size."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).reshape(2, 8)


@pytest.mark.parametrize("inside", slow_but([False, True], [True]))
def test_onnx_gives_pytorchs_features_for_batches_that_it_was_not_made_with(tmp_path, inside):
    named = tiny_named()
    subject = subject_of(named, normalise_inside=inside)
    found = write_onnx(subject, tmp_path / "m.onnx", 1e-5)
    assert 0 <= found < 1e-5
    pixels = torch.randint(0, 256, (11, 3, 16, 16), dtype=torch.uint8)
    images = normalize(pixels, named.mean, named.std)
    with torch.no_grad():
        expected = named.backbone(images)
    torch.testing.assert_close(
        runner(tmp_path / "m.onnx")(pixels if inside else images), expected, atol=1e-5, rtol=1e-4
    )
    assert onnx.load(tmp_path / "m.onnx").graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    facts = metadata(tmp_path / "m.onnx")
    assert json.loads(facts["mean"]) == list(named.mean)
    assert (facts["image_size"], facts["resize_size"]) == ("16", "18")
    assert facts["normalised_inside"] == str(inside).lower()
    assert facts["weights_sha256"] == backbone_fingerprint(named.backbone)


def test_torch_export_gives_the_same_and_carries_the_facts(tmp_path):
    named = tiny_named()
    subject = subject_of(named)
    assert write_torch(subject, tmp_path / "m.pt2", 1e-6) <= 1e-6
    extra = {FACTS_FILE: ""}
    loaded = torch.export.load(tmp_path / "m.pt2", extra_files=extra).module()
    images = subject.example(7)
    torch.testing.assert_close(loaded(images), named.backbone(images))
    assert json.loads(extra[FACTS_FILE])["weights_sha256"] == backbone_fingerprint(named.backbone)


@pytest.mark.parametrize("write", [write_onnx, write_torch])
def test_exporters_keep_their_warnings_to_themselves(tmp_path, write, recwarn):
    write(subject_of(tiny_named(backbone=Noisy())), tmp_path / "m", 1e-4)
    assert [str(warning.message) for warning in recwarn] == []


def test_another_input_size_is_fixed_in_the_file(tmp_path):
    subject = subject_of(tiny_named(), image_size=28)
    assert subject.resize_size == 32
    write_onnx(subject, tmp_path / "m.onnx", 1e-5)
    assert runner(tmp_path / "m.onnx")(subject.example(3)).shape == (3, 8)


def test_a_file_that_differs_is_not_kept(tmp_path, monkeypatch):
    subject, real = subject_of(tiny_named()), onnx_file.runner
    monkeypatch.setattr(onnx_file, "runner", lambda path: lambda images: real(path)(images) * 1.001)
    with pytest.raises(CannotExport, match=r"differs from PyTorch by 1\.0e-03"):
        write_onnx(subject, tmp_path / "m.onnx", 1e-4)
    assert list(tmp_path.iterdir()) == []
    assert write_onnx(subject, tmp_path / "m.onnx", 1e-2) == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize("other", [lambda y: y * float("nan"), lambda y: y[:, :4], lambda y: y[:1]])
def test_nan_and_other_shapes_are_differences(other):
    subject = subject_of(tiny_named())

    def run(images: Tensor) -> Tensor:
        with torch.no_grad():
            return other(subject.network(images))

    if torch.isnan(run(subject.example(2))).any():
        assert largest_difference(subject, run) == float("inf")
    else:
        with pytest.raises(CannotExport, match="where PyTorch gives"):
            largest_difference(subject, run)


UNFOLLOWED = [*itertools.product([Branching, LikesPairs], [write_onnx, write_torch])]


@pytest.mark.parametrize(("network", "write"), slow_but(UNFOLLOWED, UNFOLLOWED[:2]))
def test_networks_that_cannot_be_followed_are_one_line(tmp_path, network, write, capfd):
    named = tiny_named(backbone=network())
    with pytest.raises(CannotExport) as caught:
        write(subject_of(named, normalise_inside=network is LikesPairs), tmp_path / "m", 1e-4)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    assert capfd.readouterr() == ("", "")  # the exporters would show the graph so far, and more
    assert list(tmp_path.iterdir()) == []


def test_too_large_for_one_file(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "LARGEST_BYTES", 100)
    with pytest.raises(CannotExport, match="--format torch"):
        write_onnx(subject_of(tiny_named()), tmp_path / "m.onnx", 1e-4)


def test_no_room(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(CannotWrite):
        torch_file.write_torch(subject_of(tiny_named()), tmp_path / "file" / "m.pt2", 1e-4)


def test_the_models_modes_and_weights_stay(tmp_path):
    named = tiny_named()
    before = backbone_fingerprint(named.backbone)
    write_onnx(subject_of(named), tmp_path / "m.onnx", 1e-4)
    assert backbone_fingerprint(named.backbone) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("resnet18", "--out", "m.pt2", "--format", "onnx"), "must end in .onnx"),
        (("resnet18", "--out", "m.pt2", "--int8", "static", "--data", "sample"), "--format openvino"),
        (("resnet18", "--int8", "static"), "Add --data DATA"),
        (("resnet18", "--int8", "dynamic", "--data", "nowhere"), "there is no data at nowhere"),
        (("resnet19",), "Did you mean 'resnet18'"),
        (("resnet18", "--out", "file/m.onnx"), "Cannot write file/m.onnx"),
        (("resnet18", "--out", "there.onnx"), "--yes"),
        (("resnet18", "--out", "folder.onnx", "--yes"), "folder.onnx is a folder"),
        (("--table", "test_resnet", "resnet19"), "Did you mean 'resnet18'"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_loaded(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "there.onnx").write_text("mine")
    (tmp_path / "folder.onnx").mkdir()
    assert main(["export", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert words in printed.err
    assert printed.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.onnx", "there.onnx"]


def test_a_missing_package_names_the_extra(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    assert main(["export", "resnet18"]) == 2
    assert 'pip install "disco-zoo[export]"' in capsys.readouterr().err
