"""Engines beside PyTorch: the same features up to rounding, dropped where they are not, and said."""

from __future__ import annotations

import builtins
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from disco_zoo.errors import CannotExport, DiscoZooError, MissingExtra
from disco_zoo.models import engine as engine_module
from disco_zoo.models import graph_cache
from disco_zoo.models.encoder import backbone_fingerprint, frozen, pooled
from disco_zoo.models.engine import forward_by, installed_engines
from disco_zoo.models.forward import Forward

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.usefixtures("one_thread")
NETWORKS = ("test_efficientnet", "test_resnet", "test_vit", "test_convnext")


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DISCO_ZOO_CACHE", str(tmp_path / "caches"))
    return tmp_path / "caches" / "engines"


def network(name: str = "test_efficientnet", seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    options = {"img_size": 64} if "vit" in name else {}
    made: nn.Module = timm.create_model(name, num_classes=0, **options)
    for module in made.modules():  # a folded BatchNorm with fresh statistics would be folded right by any mistake
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return made


def images(number: int = 5, size: int = 64) -> Tensor:
    return torch.randn(number, 3, size, size, generator=torch.Generator().manual_seed(7))


def rows_by(forward: Forward, batch: Tensor) -> Tensor:
    with frozen(forward.backbone, "cpu"):
        return forward(batch)


def test_images_lie_as_the_engine_reads_them_also_after_it_was_dropped() -> None:
    backbone = network()
    forward = Forward(backbone, 64, "onnxruntime", lambda given: torch.zeros(len(given), 3))
    assert (Forward(backbone, 64).layout, forward.layout) == (None, torch.contiguous_format)
    rows_by(forward, images())
    assert (forward.engine, forward.layout) == ("torch", None)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_features_are_pytorchs_up_to_rounding_in_batches_of_any_size(caches: Path, engine: Any, name: str) -> None:
    pytest.importorskip(engine)
    backbone = network(name)
    before, mode = backbone_fingerprint(backbone), backbone.training
    forward = forward_by(backbone, 64, engine=engine)
    for number in (5, 1, 60):  # 60 are more than the engine takes at a time
        batch = images(number)
        with frozen(backbone, "cpu"):
            expected = pooled(backbone, batch)
        found = rows_by(forward, batch)
        assert found.shape == expected.shape
        assert F.cosine_similarity(found.double(), expected.double()).min() >= 0.999999
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert forward.engine.startswith(f"{engine} ")
    assert backbone_fingerprint(backbone) == before
    assert backbone.training is mode


def test_pytorch_is_pytorch_to_the_bit() -> None:
    backbone = network()
    with frozen(backbone, "cpu"):
        expected = pooled(backbone, images())
    assert torch.equal(rows_by(forward_by(backbone, 64, engine="torch"), images()), expected)


def test_few_images_are_not_worth_a_graph(caches: Path) -> None:
    forward = forward_by(network(), 64, engine="auto", num_images=10)
    assert forward.engine == "torch"
    assert not caches.exists()


def test_auto_takes_the_fastest_and_remembers_it(
    caches: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = {"torch": 3.0, "onnxruntime": 1.0, "openvino": 2.0}
    clock, names = [0.0], ["torch", *installed_engines()] * engine_module.CALIBRATION_ROUNDS
    steps = iter([step for name in names for step in (0.0, seconds[name])])

    def tick() -> float:
        clock[0] += next(steps)
        return clock[0]

    monkeypatch.setattr(engine_module.time, "perf_counter", tick)
    backbone = network()
    assert forward_by(backbone, 64, engine="auto").engine.startswith("onnxruntime ")
    assert "the fastest here" in capsys.readouterr().err
    # The clock has no more to say, so a second calibration would fail; nor is a second graph written.
    monkeypatch.setattr(graph_cache, "network_bytes", lambda *_: pytest.fail("a second graph"))
    assert forward_by(backbone, 64, engine="auto").engine.startswith("onnxruntime ")
    assert capsys.readouterr().err == ""


def test_auto_without_another_engine_is_pytorch(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "installed_engines", list)
    assert forward_by(network(), 64, engine="auto").engine == "torch"
    assert not caches.exists()


def test_an_accelerator_is_pytorchs() -> None:
    assert forward_by(network(), 64, engine="auto", device="cuda").engine == "torch"
    with pytest.raises(DiscoZooError, match=r"--engine onnxruntime runs on CPUs.*--engine torch"):
        forward_by(network(), 64, engine="onnxruntime", device="cuda")


@pytest.mark.parametrize(("name", "extra"), [("onnxruntime", "export"), ("openvino", "openvino")])
def test_a_missing_engine_names_its_extra(monkeypatch: pytest.MonkeyPatch, name: Any, extra: str) -> None:
    plain = builtins.__import__

    def without(module: str, *args: Any, **kwargs: Any) -> Any:
        if module.partition(".")[0] == name:
            raise ModuleNotFoundError(name)
        return plain(module, *args, **kwargs)

    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match=rf"disco-zoo\[{extra}\]"):
        forward_by(network(), 64, engine=name)


class Unlucky(nn.Module):
    """A network that a graph computes wrongly: it knows whether it is exported."""

    num_features = 8

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, batch: Tensor) -> Tensor:
        rows = self.conv(batch).mean(dim=(2, 3))
        return rows.flip(1) if torch.onnx.is_in_onnx_export() else rows


def test_an_engine_that_differs_is_refused_and_auto_says_so(caches: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CannotExport, match=r"onnxruntime: differs from it \(smallest cosine .*Type: --engine torch"):
        forward_by(Unlucky(), 16, engine="onnxruntime")
    forward = forward_by(Unlucky(), 16, engine="auto")
    assert forward.engine == "torch"
    assert "features without onnxruntime" in capsys.readouterr().err


def test_an_engine_that_differs_on_the_first_images_is_dropped(capsys: pytest.CaptureFixture[str]) -> None:
    backbone = network()
    forward = Forward(backbone, 64, "onnxruntime 1.0", lambda batch: torch.randn(len(batch), 256))
    with frozen(backbone, "cpu"):
        expected = pooled(backbone, images())
    assert torch.equal(rows_by(forward, images()), expected)
    assert forward.engine == "torch"
    assert capsys.readouterr().err.count("features by PyTorch: onnxruntime 1.0") == 1
    assert torch.equal(rows_by(forward, images()), expected)


def test_values_that_are_not_finite_are_an_error() -> None:
    backbone = network()
    with frozen(backbone, "cpu"):
        good = pooled(backbone, images())
    answers = iter([good, torch.full_like(good, torch.inf)])
    forward = Forward(backbone, 64, "onnxruntime 1.0", lambda _: next(answers))
    with pytest.raises(DiscoZooError, match="not finite"):
        rows_by(forward, images())


def test_a_graph_is_of_its_weights_modules_and_size(caches: Path) -> None:
    for backbone, size in ((network(), 64), (network(), 64), (network(seed=1), 64), (network(), 96)):
        graph_cache.graph_of(backbone, size)
    other = network()
    next(module for module in other.modules() if isinstance(module, nn.BatchNorm2d)).eps *= 2  # equal tensors
    graph_cache.graph_of(other, 64)
    assert len(list(caches.glob("*/graph.onnx"))) == 4


@pytest.mark.parametrize("damage", ["graph.onnx", "graph.json"])
def test_a_graph_cut_short_is_written_again(caches: Path, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    backbone = network()
    first = graph_cache.graph_of(backbone, 64)
    path = first.folder / damage
    path.write_bytes(path.read_bytes()[:-100])
    again = graph_cache.graph_of(backbone, 64)
    assert again.model == first.model
    assert "is damaged: it is written again" in capsys.readouterr().err
    assert json.loads((first.folder / "graph.json").read_text())["sha256"]
    assert graph_cache.graph_of(backbone, 64).model == first.model
    assert capsys.readouterr().err == ""


def test_no_room_for_a_graph_is_said_and_does_not_stop(
    caches: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, write: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(graph_cache, "write_whole", full)
    forward = forward_by(network(), 64, engine="onnxruntime")
    assert forward.engine.startswith("onnxruntime")
    assert "the graph is not kept" in capsys.readouterr().err


def test_the_oldest_graphs_go(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_cache, "KEPT_GRAPHS", 2)
    for seed in range(3):
        graph_cache.graph_of(network(seed=seed), 64)
    assert len(list(caches.iterdir())) == 2


@pytest.mark.parametrize("engine", ["torch", "onnxruntime", "openvino"])
def test_features_do_not_depend_on_the_number_of_threads(caches: Path, engine: Any) -> None:
    pytest.importorskip(engine)
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(rows_by(forward_by(network(), 64, engine=engine), images(120)))
    torch.set_num_threads(1)
    assert torch.equal(found[0], found[1])
