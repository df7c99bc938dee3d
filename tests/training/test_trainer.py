"""The loop: what it logs, which steps it takes, and how it stops when it must."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_runs import (
    BATCH_SIZE,
    NUM_TRAIN,
    STEPS_PER_EPOCH,
    checkpoint_of,
    differences,
    toy_parquet,
    toy_recipe,
    train,
)

from disco_zoo.errors import BadData, BadRecipe, BadRunFolder, TrainingDiverged
from disco_zoo.models.student import create_backbone
from disco_zoo.training.metrics import MetricLogger, read_metrics
from disco_zoo.training.pretraining import Pretraining, convert_sync_batchnorm
from disco_zoo.training.task import Position, total_steps
from disco_zoo.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_parquet(tmp_path_factory.mktemp("data"))


def test_steps_are_whole_batches_of_each_epoch() -> None:
    assert total_steps(toy_recipe(optim__epochs=5), NUM_TRAIN) == 5 * STEPS_PER_EPOCH
    assert (
        total_steps(toy_recipe(optim__epochs=200, optim__batch_size=256, method__queue_size=256), 1_281_167)
        == 1_000_800
    )


def test_log_holds_the_rate_each_step_was_taken_with(data: Path, tmp_path: Path) -> None:
    """lr = base_lr · batch / 256 · ½(1 + cos(π · step / steps)), the first step at the full rate."""
    train(toy_recipe("moco_v2", optim__base_lr=0.8), data, tmp_path)
    rows = [row for row in read_metrics(tmp_path) if "loss" in row]
    expected = [0.8 * BATCH_SIZE / 256 * 0.5 * (1 + math.cos(math.pi * step / 6)) for step in range(6)]
    assert [row["lr"] for row in rows] == pytest.approx(expected, rel=1e-12)
    assert [row["epoch"] for row in rows] == [0, 0, 0, 1, 1, 1]
    assert all(row["images_per_s"] > 0 for row in rows)


def test_the_speed_of_a_record_is_that_since_the_record_before_also_after_a_resume(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps of 2 s, and of 0.5 s where the run goes on; run.json's speed stays that of all steps."""
    now, step_seconds = [100.0], [2.0]
    micro_step = Trainer._micro_step

    def timed(trainer: Trainer, batch: dict[str, Any]) -> Any:
        now[0] += step_seconds[0]
        return micro_step(trainer, batch)

    monkeypatch.setattr(Trainer, "_micro_step", timed)
    monkeypatch.setattr("disco_zoo.training.trainer.time", SimpleNamespace(monotonic=lambda: now[0]))
    recipe = toy_recipe("moco_v2", log__log_every_steps=2)
    train(recipe, data, tmp_path, steps=3)
    step_seconds[0] = 0.5
    train(recipe, data, tmp_path, resume=True)
    rows = [row for row in read_metrics(tmp_path) if "loss" in row]
    assert [(row["step"], row["images_per_s"]) for row in rows] == [
        (2, BATCH_SIZE / 2.0),
        (3, BATCH_SIZE / 2.0),
        (4, BATCH_SIZE / 0.5),
        (6, BATCH_SIZE / 0.5),
    ]
    position = torch.load(tmp_path / "checkpoint.pt", weights_only=False)["position"]
    assert Position(**position).images_per_s(BATCH_SIZE) == 6 * BATCH_SIZE / (3 * 2.0 + 3 * 0.5)


def test_a_knn_due_more_often_than_a_step_is_measured_after_each(data: Path, tmp_path: Path) -> None:
    train(toy_recipe("moco_v2", log__knn_every_epochs=0.1, optim__epochs=1), data, tmp_path)
    assert [row["step"] for row in read_metrics(tmp_path) if "knn20_top1" in row] == [1, 2, 3]


def test_an_epoch_visits_each_image_at_most_once(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    micro_step = Trainer._micro_step

    def note(trainer: Trainer, batch: dict[str, Any]) -> Any:
        seen.extend(batch["index"].tolist())
        return micro_step(trainer, batch)

    monkeypatch.setattr(Trainer, "_micro_step", note)
    train(toy_recipe("moco_v2"), data, tmp_path)
    for epoch in (seen[:24], seen[24:]):
        assert len(set(epoch)) == STEPS_PER_EPOCH * BATCH_SIZE
        assert set(epoch) <= {*range(NUM_TRAIN)}
    assert seen[:24] != seen[24:]


def test_training_moves_student_and_twin_but_not_the_teacher(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teachers: list[dict[str, torch.Tensor]] = []
    former = Pretraining.__init__

    def look(task: Pretraining, recipe: Any, parts: Any, *rest: Any, **options: Any) -> None:
        teachers.append({k: v.clone() for k, v in parts.teacher.encoder.state_dict().items()})
        teachers.append(parts.teacher.encoder.state_dict())
        former(task, recipe, parts, *rest, **options)

    monkeypatch.setattr(Pretraining, "__init__", look)
    begun = train(toy_recipe(optim__base_lr=1e-12), data, tmp_path / "begun", steps=1)
    trained = train(toy_recipe(), data, tmp_path / "trained")
    moved = differences(begun["method"], trained["method"])
    assert "/student.backbone.conv_stem.weight" in moved
    assert "/contrast.twin.backbone.conv_stem.weight" in moved
    assert "/contrast.queue.rows" in moved
    assert not any("teacher" in key for key in trained["method"])
    assert differences(teachers[0], teachers[1]) == []
    assert differences(teachers[2], teachers[3]) == []


def test_accumulated_micro_batches_equal_one_batch_without_batch_norm(data: Path, tmp_path: Path) -> None:
    """DisCo's own term only: a mean over rows, so the mean of two halves; the student has LayerNorm alone."""
    changes: dict[str, Any] = {
        "student__model": "test_convnext",
        "method__contrast_weight": 0.0,
        "method__centre_teacher": False,
    }
    whole = train(toy_recipe(**changes), data, tmp_path / "whole", steps=2)
    parts = train(toy_recipe(**changes, optim__accumulation_steps=4), data, tmp_path / "parts", steps=2)
    assert parts["position"]["step"] == whole["position"]["step"] == 2
    for key, value in whole["method"].items():
        if "student" in key:
            torch.testing.assert_close(parts["method"][key], value, atol=1e-6, rtol=1e-5)


def test_the_loss_of_a_step_is_the_mean_over_its_micro_batches(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses, seen = Pretraining.losses, []

    def note(task: Pretraining, batch: dict[str, Any]) -> Any:
        found = losses(task, batch)
        seen.append(found["loss"].item())
        return found

    monkeypatch.setattr(Pretraining, "losses", note)
    train(toy_recipe("moco_v2", optim__accumulation_steps=4), data, tmp_path)
    rows = [row["loss"] for row in read_metrics(tmp_path) if "loss" in row]
    assert len(set(seen)) == len(seen) == 4 * len(rows)
    assert rows == pytest.approx([sum(seen[i : i + 4]) / 4 for i in range(0, len(seen), 4)], rel=1e-6)


@pytest.mark.parametrize("changes", [{"log__knn_bank_images": 19}, {"data__max_images": 16}])
def test_a_knn_of_fewer_images_than_its_k_is_not_measured_and_said(
    changes: dict[str, int], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(toy_recipe("moco_v2", log__knn_every_epochs=1, **changes), data, tmp_path)
    assert [row for row in read_metrics(tmp_path) if "knn20_top1" in row] == []
    assert f"kNN needs 20 labelled training images, not {next(iter(changes.values()))}" in capsys.readouterr().err


def test_loss_that_is_not_finite_stops_and_names_step_and_lr(data: Path, tmp_path: Path) -> None:
    recipe = toy_recipe("moco_v2", optim__base_lr=3e38, log__checkpoint_every_steps=1)
    with pytest.raises(TrainingDiverged) as caught:
        train(recipe, data, tmp_path)
    step = checkpoint_of(tmp_path)["position"]["step"]
    assert 1 <= step < 6
    message = str(caught.value)
    assert f"at step {step} with lr " in message
    assert f"{recipe.lr * 0.5 * (1 + math.cos(math.pi * step / 6)):.3g}" in message
    assert f"last checkpoint is kept in {tmp_path}" in message
    assert "--set optim.base_lr=1e+38" in message
    assert "\n" not in message
    assert not (tmp_path / "run.json").exists()


def test_divergence_before_the_first_checkpoint_promises_none(data: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged) as caught:
        train(toy_recipe("moco_v2", optim__base_lr=3e38), data, tmp_path)
    assert "kept" not in str(caught.value)
    assert not (tmp_path / "checkpoint.pt").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_images_are_skipped_counted_and_listed(workers: int, tmp_path: Path) -> None:
    broken = (3, 17, 20)
    data = toy_parquet(tmp_path / "data", broken=broken)
    state = train(toy_recipe("moco_v2", optim__epochs=4), data, tmp_path / "run", workers=workers)
    assert state["position"]["step"] == 4 * STEPS_PER_EPOCH
    assert sorted(state["position"]["unreadable"]) == [*broken]
    lines = (tmp_path / "run" / "unreadable_images.txt").read_text().splitlines()
    assert [line.split()[1] for line in lines] == ["3", "17", "20"]
    assert all("train_" in line and "unreadable" in line for line in lines)


def test_unreadable_images_above_the_limit_stop_the_run_with_the_list(tmp_path: Path) -> None:
    data = toy_parquet(tmp_path / "data", broken=(*range(0, 26, 2),))
    recipe = toy_recipe("moco_v2", data__max_unreadable_images=3)
    with pytest.raises(BadData, match=r"images are unreadable, 3 are tolerated.*unreadable_images\.txt"):
        train(recipe, data, tmp_path / "run")
    assert len((tmp_path / "run" / "unreadable_images.txt").read_text().splitlines()) > 3


def test_count_of_unreadable_images_survives_a_resume(tmp_path: Path) -> None:
    data = toy_parquet(tmp_path / "data", broken=(3, 17, 20))
    recipe = toy_recipe("moco_v2")
    train(recipe, data, tmp_path / "run", steps=2)
    (tmp_path / "run" / "unreadable_images.txt").unlink(missing_ok=True)
    found = train(recipe, data, tmp_path / "run", resume=True)["position"]["unreadable"]
    assert len((tmp_path / "run" / "unreadable_images.txt").read_text().splitlines()) == len(found) >= 2


def test_resume_on_other_images_is_refused_and_changes_nothing(data: Path, tmp_path: Path) -> None:
    other = toy_parquet(tmp_path / "other", num_train=30)
    train(toy_recipe("moco_v2"), data, tmp_path / "run", steps=2)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    with pytest.raises(BadRunFolder, match="other images"):
        train(toy_recipe("moco_v2"), other, tmp_path / "run", resume=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()} == before


def test_batch_larger_than_the_data_is_refused_with_one_that_fits(data: Path, tmp_path: Path) -> None:
    with pytest.raises(BadRecipe, match=r"optim\.batch_size 64 is larger than the data \(26 images\).*=13"):
        train(toy_recipe("moco_v2", optim__batch_size=64, method__queue_size=64), data, tmp_path)


def test_a_forward_of_one_image_is_refused_before_it(data: Path, tmp_path: Path) -> None:
    with pytest.raises(BadRecipe, match=r"fewer than two images.*--set optim.batch_size=8"):
        train(toy_recipe("moco_v2", optim__batch_size=4, optim__accumulation_steps=4), data, tmp_path)


@pytest.mark.parametrize("model", ["disco_effb0", "disco_mobv3", "disco_r18"])
def test_synchronised_batch_norm_keeps_what_timm_fused_into_it(model: str) -> None:
    """torch's own converter drops the activations of timm's BatchNormAct2d, and nothing says so."""
    torch.manual_seed(0)
    plain = create_backbone(model).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = plain(images)
        converted = convert_sync_batchnorm(plain)
        assert any(isinstance(module, torch.nn.SyncBatchNorm) for module in converted.modules())
        assert torch.equal(converted(images), expected)


def test_random_teacher_is_fixed_by_the_seed(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = train(toy_recipe(), data, tmp_path / "a", steps=2)
    torch.manual_seed(2)
    assert differences(train(toy_recipe(), data, tmp_path / "b", steps=2), first) == []


def test_precisions_may_differ_between_runs_of_one_process(data: Path, tmp_path: Path) -> None:
    """As between a baseline and its student."""
    for precision in ("bf16", "fp32"):
        state = train(toy_recipe("moco_v2", optim__precision=precision), data, tmp_path / precision, steps=1)
        assert state["position"]["step"] == 1


def test_tensorboard_is_written_when_its_extra_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Writer:
        scalars: list[tuple[str, float, int]] = []  # noqa: RUF012
        closed = False

        def add_scalar(self, name: str, value: float, step: int) -> None:
            self.scalars.append((name, value, step))

        def close(self) -> None:
            Writer.closed = True

    monkeypatch.setattr("disco_zoo.training.metrics._tensorboard_writer", lambda folder: Writer())
    logger = MetricLogger(tmp_path)
    logger.log({"step": 7, "loss": 1.5, "epoch": 0})
    logger.close()
    assert Writer.scalars == [("loss", 1.5, 7), ("epoch", 0, 7)]
    assert Writer.closed
    assert read_metrics(tmp_path) == [{"step": 7, "loss": 1.5, "epoch": 0}]
