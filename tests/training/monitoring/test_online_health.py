"""What is watched without labels: the right figures of the right images, no trace in the training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from method_runs import method_recipe
from PIL import Image
from slow_params import slow_but
from tiny_runs import STEPS_PER_EPOCH, checkpoint_of, differences, toy_images, toy_parquet, toy_recipe, train
from torch import Tensor
from torchvision.transforms import v2

from disco_zoo.config.recipe import Recipe
from disco_zoo.data.dataset import ImageSource
from disco_zoo.evaluation.metrics import centered_cosine, effective_rank, linear_cka
from disco_zoo.methods import METHODS
from disco_zoo.training.build import build_parts
from disco_zoo.training.metrics import read_metrics
from disco_zoo.training.monitoring import online_health
from disco_zoo.training.monitoring.online_health import OnlineHealth, health_records
from disco_zoo.training.run_data import open_data

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_parquet(tmp_path_factory.mktemp("data"))


def health_of(recipe: Recipe, data: Path) -> tuple[OnlineHealth, Any]:
    sources = open_data(recipe, str(data))
    return OnlineHealth(recipe, sources.train, sources.test), build_parts(recipe, sources.train)


def looked_at(image: Image.Image, side: int) -> Tensor:
    large = v2.functional.resize(image, [round(side * 256 / 224)] * 2, antialias=True)
    return torch.from_numpy(np.array(v2.functional.center_crop(large, [side, side]))).permute(2, 0, 1)


def test_figures_are_of_the_test_images_under_eval(data: Path) -> None:
    """All 12 of them, whose order matters to none of the figures; the teacher looks at its own size."""
    recipe = toy_recipe(teacher__image_size=48)
    health, parts = health_of(recipe, data)
    found = health(parts.method, 0)
    views = torch.stack([looked_at(image, 48) for image in toy_images(12, seed=1)])
    parts.student.eval()
    with torch.no_grad():
        features = parts.student.features(views)
        embeddings = parts.student.head(features)
        targets = parts.teacher.encoder.features(views)
    features, of_length_1, taught = (F.normalize(rows, dim=1) for rows in (features, embeddings, targets))
    assert health.images == {"images": 12, "split": "test"}
    assert found == {
        "student_rank": pytest.approx(effective_rank(features), rel=1e-3),
        "embedding_rank": pytest.approx(effective_rank(of_length_1), rel=1e-3),
        "teacher_rank": pytest.approx(effective_rank(taught), rel=1e-3),
        "student_rank_bound": 12,
        "embedding_rank_bound": 12,
        "teacher_rank_bound": 12,
        "cka": pytest.approx(linear_cka(features, taught), abs=1e-3),
        "cosine": pytest.approx(centered_cosine(embeddings, targets), abs=1e-3),
        "settled": False,
    }


def test_a_few_long_rows_change_neither_rank_nor_cka() -> None:
    """EfficientNet-B0 has such rows soon after a start from inherited tensors."""
    rows = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
    lengths = torch.ones(64, 1)
    lengths[:3] = 60
    figures = online_health._figures({"student": lengths * rows, "teacher": rows})
    assert figures == online_health._figures({"student": rows, "teacher": rows})
    assert figures["cka"] == 1.0
    assert linear_cka(lengths * rows, rows) < 0.5


def test_as_many_images_as_asked_for_drawn_by_the_seed(data: Path) -> None:
    shares = [health_of(toy_recipe(log__health_images=5, seed=seed), data)[0]._images for seed in (0, 0, 1)]
    assert [len(images) for images in shares] == [5, 5, 5]
    assert torch.equal(shares[0], shares[1])
    assert not torch.equal(shares[0], shares[2])


def test_without_test_images_they_are_training_images_and_unreadable_ones_are_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, image in enumerate(toy_images(16, seed=0)):
        image.save(folder / f"{number:02d}.png")
    (folder / "05.png").write_bytes(b"no image")
    health, parts = health_of(toy_recipe("moco_v2"), folder)
    assert health.images == {"images": 16, "split": "train"}
    assert health._images.shape == (16, 3, 32, 32)
    assert (
        {"student_rank", "embedding_rank"}
        <= health(parts.method, 0).keys()
        <= {
            "student_rank",
            "embedding_rank",
            "student_rank_bound",
            "embedding_rank_bound",
            "settled",
        }
    )


@pytest.mark.parametrize("method", METHODS)
def test_every_method_says_what_it_compares(method: str, data: Path) -> None:
    recipe = method_recipe(method)
    health, parts = health_of(recipe, data)
    found = health(parts.method, 0)
    assert ("cka" in found) == ("teacher_rank" in found) == METHODS[method].needs_teacher
    draws_rows_together = METHODS[method].needs_teacher and not METHODS[method].own_width
    assert ("cosine" in found) == draws_rows_together


def test_rows_that_a_loss_has_made_equal_have_the_cosine_one(data: Path) -> None:
    """The feature method compares behind its adapter; RKD's distances alone compare no row with a row."""
    health, parts = health_of(method_recipe("feature"), data)
    parts.method.standardise.update(torch.randn(40, parts.teacher.embed_dim) * 3 + 1)
    parts.method.adapter = Lookup(parts.method.standardise, health, parts.method)
    assert health(parts.method, 0)["cosine"] == pytest.approx(1.0, abs=1e-4)
    recipe = method_recipe("rkd")
    alone = recipe.model_copy(update={"method": {**recipe.method, "distill_weight": 0.0}})
    health, parts = health_of(alone, data)
    assert "cosine" not in health(parts.method, 0)


class Lookup(torch.nn.Module):
    """An adapter that has learned everything."""

    def __init__(self, standardise: Any, health: OnlineHealth, method: Any) -> None:
        super().__init__()
        self.answer = lambda: standardise(health._teacher_rows(method, "cpu"))

    def forward(self, rows: Tensor) -> Tensor:
        return self.answer()


def test_a_teacher_in_train_mode_is_left_as_it_was(data: Path) -> None:
    health, parts = health_of(toy_recipe(teacher__bn_mode="train"), data)
    before = {name: value.clone() for name, value in parts.teacher.encoder.state_dict().items()}
    parts.method.train()
    modes = [module.training for module in [*parts.method.modules(), *parts.teacher.encoder.modules()]]
    health(parts.method, 0)
    assert differences(before, parts.teacher.encoder.state_dict()) == []
    assert modes == [module.training for module in [*parts.method.modules(), *parts.teacher.encoder.modules()]]


def test_the_teacher_sees_the_images_once(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    health, parts = health_of(toy_recipe(), data)
    seen: list[int] = []
    features = type(parts.teacher.encoder).features

    def count(encoder: Any, *arguments: Any) -> Tensor:
        seen.append(encoder is parts.teacher.encoder)
        return features(encoder, *arguments)

    monkeypatch.setattr(type(parts.teacher.encoder), "features", count)
    assert health(parts.method, 0) == health(parts.method, 0)
    assert (sum(seen), len(seen)) == (1, 3)


@pytest.mark.parametrize("method", slow_but(["disco", "moco_v2", "feature"], ["disco"]))
def test_watching_does_not_change_training(method: str, data: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """With dropout and BatchNorm, and a look after every step."""
    monkeypatch.setattr("disco_zoo.training.monitoring.online_health.EARLY_STEPS", range(100))
    changes = {"student__model": "dropping_student"}
    unseen = train(method_recipe(method, log__health_images=0, **changes), data, tmp_path / "unseen")
    seen = train(method_recipe(method, **changes), data, tmp_path / "seen")
    assert differences(seen, unseen) == []  # of the recipe's digest, too
    assert [row["step"] for row in health_records(tmp_path / "seen")] == [*range(7)]
    assert health_records(tmp_path / "unseen") == []
    assert json.loads((tmp_path / "unseen" / "run.json").read_text())["health"] is None
    losses = [[row["loss"] for row in read_metrics(tmp_path / name) if "loss" in row] for name in ("seen", "unseen")]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("bn_mode", ["eval", "train"])
def test_a_resumed_run_has_the_records_of_one_that_was_not(
    bn_mode: str, data: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """Also of a teacher in train mode, whose statistics each forward moves, and which no checkpoint holds."""
    monkeypatch.setattr("disco_zoo.training.monitoring.online_health.EARLY_STEPS", range(100))
    recipe = toy_recipe("disco", student__model="dropping_student", teacher__bn_mode=bn_mode)
    train(recipe, data, tmp_path / "straight")
    train(recipe, data, tmp_path / "parts", steps=STEPS_PER_EPOCH + 1)
    train(recipe, data, tmp_path / "parts", resume=True)
    assert health_records(tmp_path / "parts") == health_records(tmp_path / "straight")
    assert differences(checkpoint_of(tmp_path / "parts"), checkpoint_of(tmp_path / "straight")) == []


@pytest.mark.parametrize(
    ("knn", "images", "steps"),
    [
        (1.0, 8 * 300, [0, 25, 50, 100, 300, 600, 700]),
        (0.25, 8 * 1000, [0, 25, 50, 100, 250, 500, 700]),
        (0.0, 8 * 300, [0, 25, 50, 100, 300, 600, 700]),
        (1.0, 8 * 30, [0, 25, 50, 100, 120, 240, 360, 480, 600, 700]),
    ],
)
def test_when_it_looks(knn: float, images: int, steps: list[int]) -> None:
    health = OnlineHealth(toy_recipe(log__knn_every_epochs=knn), Numbered(images), None)
    assert [step for step in range(701) if health.is_due(step, 700)] == steps
    assert not health.is_due(0, 0)  # a start that is not trained


class Numbered(ImageSource):
    def __init__(self, number: int) -> None:
        super().__init__("numbered", "train")
        self.number = number

    def __len__(self) -> int:
        return self.number

    def encoded(self, index: int) -> bytes:
        raise NotImplementedError

    def path(self, index: int) -> str:
        return str(index)

    def _hash_content(self, digest: Any) -> None:
        pass


def test_features_that_are_not_finite_are_said_and_not_recorded(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    health, parts = health_of(toy_recipe("moco_v2"), data)
    with torch.no_grad():
        next(parts.student.backbone.parameters()).fill_(float("inf"))
    assert health(parts.method, 0) == {}
    assert "Features are not finite, so they have no rank: student, embedding" in capsys.readouterr().err
