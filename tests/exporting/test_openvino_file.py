"""OpenVINO files compute what PyTorch does, in any batch, and say whose features they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from embed_makers import tiny_named
from slow_params import slow_but
from tiny import TinySource, make_run_folder

from disco_zoo.cli import main
from disco_zoo.errors import CannotExport, MissingExtra
from disco_zoo.exporting import openvino_file
from disco_zoo.exporting.loss import int8_loss
from disco_zoo.exporting.onnx_file import calibration_batches
from disco_zoo.exporting.openvino_file import FACTS, require_openvino, weights_path, write_openvino, write_openvino_int8
from disco_zoo.exporting.subject import subject_of
from disco_zoo.models.encoder import backbone_fingerprint
from disco_zoo.models.onnx_network import openvino_runner

pytestmark = pytest.mark.usefixtures("one_thread")


def openvino_facts(path: Path) -> dict[str, str]:
    """The facts in a file, as strings."""
    found = require_openvino().Core().read_model(path).get_rt_info([FACTS])
    return {key: str(value) for key, value in found.value.items()}


@pytest.mark.parametrize("inside", slow_but([False, True], [True]))
def test_it_gives_pytorchs_features_for_batches_that_it_was_not_made_with(tmp_path: Path, inside: bool) -> None:
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    named = tiny_named()
    subject = subject_of(named, normalise_inside=inside)
    path = tmp_path / "m.xml"
    assert 0 <= write_openvino(subject, path, 1e-5) < 1e-5
    images = subject.example(11)
    with torch.no_grad():
        expected = subject.network(images)
    torch.testing.assert_close(openvino_runner(path)(images), expected, atol=1e-5, rtol=1e-4)
    facts = openvino_facts(path)
    assert json.loads(facts["mean"]) == list(named.mean)
    assert facts["weights_sha256"] == backbone_fingerprint(named.backbone)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.bin", "m.xml"]


def test_a_file_that_differs_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    real = openvino_runner
    monkeypatch.setattr(openvino_file, "openvino_runner", lambda path: lambda images: real(path)(images) + 1)
    with pytest.raises(CannotExport, match="the OpenVINO file of tiny differs"):
        write_openvino(subject_of(tiny_named()), tmp_path / "m.xml", 1e-4)
    assert [*tmp_path.iterdir()] == []


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    monkeypatch.chdir(tmp_path)
    make_run_folder(tmp_path / "model")
    arguments = ["export", "model", "--out", "m.xml", "--json"]
    assert main(arguments) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["largest_difference"] < 1e-5
    assert facts["bytes"] == sum((tmp_path / name).stat().st_size for name in ("m.xml", "m.bin"))
    assert main(arguments) == 2
    assert "is there already" in capsys.readouterr().err
    assert main([*arguments, "--int8", "dynamic", "--yes"]) == 2
    assert "--int8 static --calibrate IMAGES" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore")
def test_int8_is_close_keeps_the_facts_and_runs_any_batch(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    pytest.importorskip("nncf", reason="the extra openvino is not installed")
    subject, source = subject_of(tiny_named()), TinySource(40)
    write_openvino(subject, tmp_path / "m.xml", 1e-4)
    batches = calibration_batches(subject, source, range(16))
    write_openvino_int8(subject, tmp_path / "m.xml", tmp_path / "m.int8.xml", batches)
    assert openvino_facts(tmp_path / "m.int8.xml") == openvino_facts(tmp_path / "m.xml")
    found = int8_loss(subject, tmp_path / "m.int8.xml", source, range(16, 40), source, range(16), k=3)
    assert 0.99 < found.lowest_cosine <= found.mean_cosine < 1
    assert found.top1 is not None
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.bin", "m.int8.bin", "m.int8.xml", "m.xml"]


def test_without_the_package_its_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing() -> None:
        raise MissingExtra('openvino is not installed. Type: pip install "disco-zoo[openvino]"')

    monkeypatch.setattr("disco_zoo.exporting.job.require_openvino", missing)
    assert main(["export", "disco_effb0", "--out", str(tmp_path / "m.xml")]) == 2
    assert "disco-zoo[openvino]" in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == []


def test_the_bin_lies_beside_the_xml() -> None:
    assert weights_path(Path("a/m.v1.xml")) == Path("a/m.v1.bin")
