"""What is watched without labels: the right figures of the right images, no trace in the training, a collapse said."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from method_runs import method_recipe
from PIL import Image
from tiny_runs import STEPS_PER_EPOCH, checkpoint_of, differences, toy_images, toy_parquet, toy_recipe, train
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.transforms import v2

from disco_zoo.batch import Batch
from disco_zoo.build import build_parts
from disco_zoo.datasets import ImageSource
from disco_zoo.health_report import HOW_TO_READ, health_lines, health_records
from disco_zoo.methods import METHODS
from disco_zoo.methods.moco_v2 import MoCoV2
from disco_zoo.metric_logger import read_metrics
from disco_zoo.online_health import OnlineHealth, collapsed
from disco_zoo.recipe import Recipe, load_recipe
from disco_zoo.report import finish_training
from disco_zoo.representation_quality import centred_cosine, effective_rank, linear_cka
from disco_zoo.run import Run, RunOptions, open_data

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
    found = health(parts.method)
    views = torch.stack([looked_at(image, 48) for image in toy_images(12, seed=1)])
    parts.student.eval()
    with torch.no_grad():
        features = parts.student.features(views)
        embeddings = parts.student.head(features)
        targets = parts.teacher.encoder.features(views)
    assert health.images == {"images": 12, "split": "test"}
    assert found == {
        "student_rank": pytest.approx(effective_rank(features), rel=1e-3),
        "embedding_rank": pytest.approx(effective_rank(embeddings), rel=1e-3),
        "teacher_rank": pytest.approx(effective_rank(targets), rel=1e-3),
        "student_rank_bound": 12, "embedding_rank_bound": 12, "teacher_rank_bound": 12,
        "cka": pytest.approx(linear_cka(features, targets), abs=1e-3),
        "cosine": pytest.approx(centred_cosine(embeddings, targets), abs=1e-3),
    }  # fmt: skip


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
    assert {"student_rank", "embedding_rank"} <= health(parts.method).keys() <= {
        "student_rank", "embedding_rank", "student_rank_bound", "embedding_rank_bound",
    }  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_every_method_says_what_it_compares(method: str, data: Path) -> None:
    recipe = method_recipe(method)
    health, parts = health_of(recipe, data)
    found = health(parts.method)
    assert ("cka" in found) == ("teacher_rank" in found) == METHODS[method].needs_teacher
    draws_rows_together = METHODS[method].needs_teacher and not METHODS[method].own_width
    assert ("cosine" in found) == draws_rows_together


def test_rows_that_a_loss_has_made_equal_have_the_cosine_one(data: Path) -> None:
    """The feature method compares behind its adapter; RKD's distances alone compare no row with a row."""
    health, parts = health_of(method_recipe("feature"), data)
    parts.method.standardise.update(torch.randn(40, parts.teacher.embed_dim) * 3 + 1)
    parts.method.adapter = Lookup(parts.method.standardise, health, parts.method)
    assert health(parts.method)["cosine"] == pytest.approx(1.0, abs=1e-4)
    recipe = method_recipe("rkd")
    alone = recipe.model_copy(update={"method": {**recipe.method, "distill_weight": 0.0}})
    health, parts = health_of(alone, data)
    assert "cosine" not in health(parts.method)


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
    health(parts.method)
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
    assert health(parts.method) == health(parts.method)
    assert (sum(seen), len(seen)) == (1, 3)


@pytest.mark.parametrize("method", ["disco", "moco_v2", "feature"])
def test_watching_does_not_change_training(method: str, data: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """With dropout and BatchNorm, and a look after every step."""
    monkeypatch.setattr("disco_zoo.online_health.EARLY_STEPS", range(100))
    changes = {"student__model": "dropping_student"}
    unseen = train(method_recipe(method, log__health_images=0, **changes), data, tmp_path / "unseen")
    seen = train(method_recipe(method, **changes), data, tmp_path / "seen")
    assert differences(seen, unseen) == []  # of the recipe's digest, too
    assert [row["step"] for row in health_records(tmp_path / "seen")] == [*range(7)]
    assert health_records(tmp_path / "unseen") == []
    assert json.loads((tmp_path / "unseen" / "run.json").read_text())["health"] is None
    losses = [[row["loss"] for row in read_metrics(tmp_path / name) if "loss" in row] for name in ("seen", "unseen")]
    assert losses[0] == losses[1]


def test_a_resumed_run_has_the_records_of_one_that_was_not(data: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("disco_zoo.online_health.EARLY_STEPS", range(100))
    recipe = toy_recipe("disco", student__model="dropping_student")
    train(recipe, data, tmp_path / "straight")
    train(recipe, data, tmp_path / "parts", steps=STEPS_PER_EPOCH + 1)
    train(recipe, data, tmp_path / "parts", resume=True)
    assert health_records(tmp_path / "parts") == health_records(tmp_path / "straight")
    assert differences(checkpoint_of(tmp_path / "parts"), checkpoint_of(tmp_path / "straight")) == []


@pytest.mark.parametrize(("knn", "images", "steps"), [
    (1.0, 8 * 300, [0, 25, 50, 100, 300, 600, 700]),
    (0.25, 8 * 1000, [0, 25, 50, 100, 250, 500, 700]),
    (0.0, 8 * 300, [0, 25, 50, 100, 300, 600, 700]),
    (1.0, 8 * 30, [0, 25, 50, 100, 120, 240, 360, 480, 600, 700]),
])  # fmt: skip
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


def test_collapsed_is_a_fall_from_what_was_there() -> None:
    start = [{"student_rank": 300.0, "embedding_rank": 1.5}, {"student_rank": 200.0, "embedding_rank": 41.0}]
    assert collapsed({"student_rank": 16.1, "embedding_rank": 3.1}, start) == []
    assert collapsed({"student_rank": 15.9, "embedding_rank": 3.1}, start) == ["student_rank"]
    assert collapsed({"student_rank": 15.9, "embedding_rank": 2.9}, start) == ["student_rank", "embedding_rank"]
    assert collapsed({"student_rank": 1.0}, []) == []
    assert collapsed({"student_rank": 1.003}, [{"student_rank": 1.003}]) == []  # a random start, waiting for warm-up


class Shrinking(MoCoV2):
    """The weights of the head go to zero and its biases stay: one output for all images."""

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        weights = [value for name, value in self.student.head.named_parameters() if name.endswith("weight")]
        return {"loss": sum((weight.square().sum() for weight in weights), start=torch.zeros(()))}


class Dying(MoCoV2):
    """The backbone's last BatchNorm goes to one value for all images, and with it the features."""

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        last = [module for module in self.student.backbone.modules() if isinstance(module, _BatchNorm)][-1]
        return {"loss": last.weight.square().sum() + (last.bias - 1).square().sum()}


@pytest.fixture(scope="module")
def long_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_parquet(tmp_path_factory.mktemp("long"), num_train=816, num_test=64)


@pytest.mark.parametrize(("kind", "fallen"), [(Shrinking, "embedding_rank"), (Dying, "student_rank")])
def test_a_collapse_is_said_once_within_a_hundred_steps(
    kind: type[MoCoV2], fallen: str, long_data: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setitem(METHODS, "moco_v2", kind)
    changes = {"optim__epochs": 1, "optim__base_lr": 6.0, "optim__schedule": "constant", "log__log_every_steps": 50}
    finish(toy_recipe("moco_v2", **changes), str(long_data), tmp_path / "run", None)
    records = health_records(tmp_path / "run")
    assert [row["step"] for row in records] == [0, 25, 50, 100, 102]
    first = next(row["step"] for row in records if "collapsed" in row)
    assert first <= 50
    assert all(fallen in row["collapsed"] for row in records if row["step"] >= first)
    shown = capsys.readouterr().err
    assert f"The student has collapsed at step {first}: the effective rank" in shown
    assert shown.count("has collapsed") == 1
    report = (tmp_path / "run" / "report.md").read_text()
    assert f"**The student collapsed: seen first at step {first}, last at step 102.**" in report


@pytest.mark.parametrize(
    "name", ["mocov2", *(pytest.param(f"{name}_lite0", marks=pytest.mark.slow) for name in ("disco", "coss"))]
)
def test_a_healthy_run_is_not_called_collapsed(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A hundred steps of a pocket recipe on the embedded sample, with a small student."""
    overrides = ["student.model=test_efficientnet", "optim.batch_size=16", "log.knn_every_epochs=0"]
    overrides += ["teacher.image_size=32"] * ("lite0" in name)
    recipe = load_recipe(f"pocket/disco_r18.{name}_fmnist", overrides)
    facts = finish(recipe, "sample", tmp_path / "run", 100)
    records = health_records(tmp_path / "run")
    assert [row["step"] for row in records] == [0, 25, 50, 100]
    assert "collapsed" not in capsys.readouterr().err
    assert not any("collapsed" in row for row in records)
    assert facts["health"] == {"images": 512, "split": "test", **records[-1]}
    assert records[-1]["embedding_rank"] > 5 * records[0]["embedding_rank"]
    if "lite0" in name:
        assert records[-1]["cosine"] > 0.1 > abs(records[0]["cosine"])
        assert len({row["teacher_rank"] for row in records}) == 1


def finish(recipe: Recipe, data: str, folder: Path, steps: int | None) -> dict[str, Any]:
    """Train and write the report, as `disco-zoo train` does."""
    options = RunOptions(workers=0, max_steps=steps)
    with contextlib.closing(Run(recipe, open_data(recipe, data), folder, options, label="toy")) as run:
        run.train()
        facts = finish_training(run)
    assert facts is not None
    return facts


def test_the_section_of_a_report_holds_start_a_hundred_steps_and_end(tmp_path: Path) -> None:
    rows = [
        {"step": step, "epoch": 0, "student_rank": value, "student_rank_bound": 512, "cka": value / 1000}
        for step, value in ((0, 1.94), (25, 4.0), (50, 17.5), (100, 19.0), (400, 60.25), (900, 130.04))
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = health_lines(tmp_path, {"health": {"images": 512, "split": "train"}})
    assert lines[1:] == [
        "## Is it working?",
        "",
        "| without labels | start | step 100 | end, step 900 | at most |",
        "|---|---:|---:|---:|---:|",
        "| effective rank of the student's features | 1.94 | 19.0 | 130.0 | 512 |",
        "| CKA of the student's features with the teacher's | 0.00 | 0.02 | 0.13 | 1 |",
        "",
        f"Of 512 training images, without augmentation. {HOW_TO_READ}",
    ]
    assert health_lines(tmp_path, {"health": None}) == []
    assert health_lines(tmp_path, {}) == []  # of a run before there was this
    (tmp_path / "metrics.jsonl").write_text(json.dumps(rows[0]) + "\n" + json.dumps(rows[1]) + "\n")
    assert "| start | end, step 25 | at most |" in health_lines(tmp_path, {"health": {"images": 5, "split": "test"}})[3]


def test_features_that_are_not_finite_are_said_and_not_recorded(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    health, parts = health_of(toy_recipe("moco_v2"), data)
    with torch.no_grad():
        next(parts.student.backbone.parameters()).fill_(float("inf"))
    assert health(parts.method) == {}
    assert "Features of the student are not finite" in capsys.readouterr().err
