"""The figures of a bench, computed a second time by other means."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from tiny_runs import toy_parquet
from torch import nn

from disco_zoo.data.dataset import ImageSource, require_labels
from disco_zoo.data.open_source import open_source
from disco_zoo.errors import BadData
from disco_zoo.evaluation import measure
from disco_zoo.evaluation.measure import Bench
from disco_zoo.models.encoder import backbone_fingerprint

pytestmark = pytest.mark.usefixtures("one_thread")

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
SIZE = 16  # the images' own: no resizing, so that both computations see the same pixels


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_parquet(tmp_path_factory.mktemp("data"), num_train=210, num_test=60)


@pytest.fixture
def bench(data: Path) -> Bench:
    return Bench(open_source(str(data), "train"), open_source(str(data), "test"), SIZE, SIZE)


class Mixer(nn.Module):
    """Random projections of the pixels: BatchNorm and dropout would betray a wrong mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.5)
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3 * SIZE * SIZE, 8, generator=generator) / 30)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.drop(self.norm(images)).flatten(1) @ self.weight


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 3, S, S) in 0..1 and labels, without the package."""
    rows = pq.read_table(path).to_pylist()
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")) for row in rows])
    names = sorted({row["label"] for row in rows})
    return pixels.transpose(0, 3, 1, 2) / 255.0, np.array([names.index(row["label"]) for row in rows])


def knn_by_hand(bank: np.ndarray, bank_labels: np.ndarray, queries: np.ndarray, labels: np.ndarray, k: int) -> float:
    bank, queries = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (bank, queries))
    right = 0
    for query, label in zip(queries, labels, strict=True):
        similarity = bank @ query
        nearest = np.argsort(-similarity, kind="stable")[:k]
        votes = np.zeros(labels.max() + 1)
        np.add.at(votes, bank_labels[nearest], np.exp(similarity[nearest] / 0.07))
        right += int(votes.argmax() == label)
    return 100.0 * right / len(labels)


def test_figures_equal_an_independent_computation(data: Path, bench: Bench) -> None:
    model = Mixer()
    figures = bench.measure(model, mean=MEAN, std=STD, label="toy").figures
    features, labels = [], []
    for split in ("train", "test"):
        pixels, own = read(data.with_name(f"toy_{split}.parquet"))
        normal = (pixels - np.reshape(MEAN, (1, 3, 1, 1))) / np.reshape(STD, (1, 3, 1, 1))
        normal = normal / np.sqrt(1 + model.norm.eps)  # BatchNorm in eval with fresh statistics
        features.append(normal.reshape(len(normal), -1) @ model.weight.detach().numpy().astype(np.float64))
        labels.append(own)
    for k in (1, 20, 200):
        expected = knn_by_hand(features[0], labels[0], features[1], labels[1], k)
        assert figures[f"knn{k}_top1"] == pytest.approx(expected, abs=1e-9), k
    mean, std = features[0].mean(axis=0), features[0].std(axis=0)
    probe = LogisticRegression(C=1.0, max_iter=2000).fit((features[0] - mean) / std, labels[0])
    expected = 100.0 * probe.score((features[1] - mean) / std, labels[1])
    assert figures["linear_top1"] == pytest.approx(expected, abs=100 * 2 / 60)  # its own choice of the penalty
    assert figures.keys() == {"knn1_top1", "knn20_top1", "knn200_top1", "linear_top1"}
    assert 34 < figures["knn20_top1"] <= 100


@pytest.mark.parametrize("training", [True, False])
def test_measuring_changes_neither_backbone_nor_mode_nor_random_state(training: bool, bench: Bench) -> None:
    model = timm.create_model("test_efficientnet", num_classes=0, drop_rate=0.5).train(training)
    model.blocks[0].eval()  # one part frozen by its owner
    modes = [module.training for module in model.modules()]
    before, random = backbone_fingerprint(model), torch.get_rng_state()
    first = bench.measure(model, mean=MEAN, std=STD, label="toy")
    assert backbone_fingerprint(model) == before
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
    assert bench.measure(model, mean=MEAN, std=STD, label="toy").figures == first.figures
    assert torch.equal(first.test_features.labels, torch.tensor(bench.test.labels))  # type: ignore[arg-type]


def test_pixels_are_scored_by_knn_alone(data: Path, bench: Bench) -> None:
    (train, train_labels), (test, test_labels) = (read(data.with_name(f"toy_{s}.parquet")) for s in ("train", "test"))
    flat = [(2 * pixels - 1).reshape(len(pixels), -1) for pixels in (train, test)]
    expected = knn_by_hand(flat[0], train_labels, flat[1], test_labels, 20)
    figures = bench.measure_pixels(SIZE)
    assert figures.keys() == {"knn1_top1", "knn20_top1", "knn200_top1"}
    assert figures["knn20_top1"] == pytest.approx(expected, abs=1e-9)


def test_a_backbone_that_changes_itself_is_found_out(bench: Bench) -> None:
    class Sly(Mixer):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.weight.data.mul_(1.001)
            return super().forward(images)

    with pytest.raises(RuntimeError, match="changed the backbone"):
        bench.measure(Sly(), mean=MEAN, std=STD, label="toy")


def test_bench_is_checked_before_the_long_work(tmp_path: Path) -> None:
    small = toy_parquet(tmp_path, num_train=150)
    with pytest.raises(BadData, match="k=200 needs more than the 150 images"):
        Bench(open_source(str(small), "train"), open_source(str(small), "test"), SIZE, SIZE).check()


def test_a_look_probes_its_own_part_of_the_images_for_one_epoch(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def note(backbone: nn.Module, dim: int, train: ImageSource, test: ImageSource, **options: Any) -> Any:
        given.update(train=train, test=test, **options)
        return SimpleNamespace(top1=1.0)

    monkeypatch.setattr(measure, "linear_probe", note)
    replace(bench, linear="disco", max_images=200).measure(Mixer(), mean=MEAN, std=STD, label="look")
    assert (len(given["train"]), given["epochs"]) == (200, 1)
    assert {*require_labels(given["test"], "")} <= {*require_labels(given["train"], "")}
    replace(bench, linear="disco").measure(Mixer(), mean=MEAN, std=STD, label="whole")
    assert (given["train"], given["test"], given["epochs"]) == (bench.train, bench.test, None)
