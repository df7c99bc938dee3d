"""Files that timmx writes compute what PyTorch does, and what is missing is one line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch

from disco_zoo.cli import main
from disco_zoo.errors import CannotExport, MissingExtra
from disco_zoo.exporting import timmx_file
from disco_zoo.exporting.subject import subject_of
from disco_zoo.exporting.timmx_file import FORMATS, facts_path, require_timmx, write_timmx
from disco_zoo.models.load import load_model

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore")]


def installed(kind: str) -> None:
    try:
        require_timmx(kind)
    except MissingExtra as error:
        pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ncnn", "litert", "executorch"])
def test_the_file_gives_pytorchs_features(kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    installed(kind)
    torch.manual_seed(0)
    subject = subject_of(load_model("mobilenetv2_050", pretrained=False), image_size=64)
    path = tmp_path / f"m{FORMATS[kind].suffix}"
    found = write_timmx(subject, kind, path, 1e-4)
    assert found is not None
    assert found < 1e-4
    facts = json.loads(facts_path(path).read_text())
    assert (facts["network"], facts["image_size"], facts["batch"]) == ("mobilenetv2_050", 64, 1)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([path.name, facts_path(path).name])
    assert capfd.readouterr().out == ""


def fake(monkeypatch: pytest.MonkeyPatch, spoil: float) -> None:
    """A timmx whose format is torch's own, to see what it is given; `spoil` is added to its features."""

    def export_model(kind: str, name: str, *, num_classes: int, output: Path, **_: object) -> None:
        torch.save(timm.create_model(name, pretrained=True, num_classes=num_classes).state_dict(), output)

    def runner(path: Path):
        network = timm.create_model("mobilenetv2_050", num_classes=0).eval()
        network.load_state_dict(torch.load(path))
        return lambda image: network(image).detach() + spoil

    monkeypatch.setattr(timmx_file, "require_timmx", lambda kind: SimpleNamespace(export_model=export_model))
    monkeypatch.setitem(FORMATS, "litert", timmx_file.TimmxFormat(".tflite", {}, runner))


def test_timm_builds_our_network_of_the_folder_that_timmx_gets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, 0.0)
    subject = subject_of(load_model("mobilenetv2_050", pretrained=False), image_size=64)
    found = write_timmx(subject, "litert", tmp_path / "m.tflite", 1e-4)
    assert found is not None
    assert found < 1e-5  # timm's activations for exports round otherwise


def test_a_file_that_differs_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, 1.0)
    subject = subject_of(load_model("mobilenetv2_050", pretrained=False), image_size=64)
    with pytest.raises(CannotExport, match="the litert file of mobilenetv2_050 differs"):
        write_timmx(subject, "litert", tmp_path / "m.tflite", 1e-4)
    assert [*tmp_path.iterdir()] == []


def test_without_timmx_its_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "timmx", None)
    assert main(["export", "disco_effb0", "--out", str(tmp_path / "m.ncnn")]) == 2
    assert capsys.readouterr().err.strip() == 'Error: timmx is not installed. Type: pip install "disco-zoo[timmx]"'


def test_what_timmx_misses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    status = SimpleNamespace(available=False, missing_packages=["pnnx", "ncnn"], install_hint="pip install X")
    registry = SimpleNamespace(get=lambda kind: SimpleNamespace(check_dependencies=lambda: status))
    monkeypatch.setitem(sys.modules, "timmx", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "timmx.export", SimpleNamespace(create_builtin_registry=lambda: registry))
    with pytest.raises(MissingExtra, match=r"--format ncnn needs pnnx and ncnn, .* pip install X"):
        require_timmx("ncnn")
