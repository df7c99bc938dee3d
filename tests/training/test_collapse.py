"""A collapse is said when it happens, and a healthy training is not called one; what the report makes of both."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from slow_params import slow_but
from tiny_runs import toy_parquet, toy_recipe
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from disco_zoo.config.recipe import Recipe, load_recipe
from disco_zoo.methods import METHODS
from disco_zoo.methods.base import Batch
from disco_zoo.methods.moco_v2 import MoCoV2
from disco_zoo.training.monitoring.online_health import HOW_TO_READ, collapsed, health_lines, health_records, settled
from disco_zoo.training.run import Run, RunOptions
from disco_zoo.training.run_data import open_data
from disco_zoo.training.train import finish_training

pytestmark = pytest.mark.usefixtures("one_thread")


def looks(*ranks: float, first: int = 50) -> list[dict[str, Any]]:
    return [{"step": first + 50 * i, "embedding_rank": rank, "settled": True} for i, rank in enumerate(ranks)]


@pytest.mark.parametrize(
    ("rank", "earlier", "fallen"),
    [
        (1.49, [], True),
        (1.51, [], False),
        (3.1, looks(40.0, 41.0, 12.0), False),
        (2.9, looks(40.0, 41.0, 12.0), True),
        (1.04, looks(1.05, first=0), False),  # no BatchNorm, waiting for warm-up
        (1.02, looks(1.05, first=0), True),
        (1.45, looks(2.5, 3.0, first=0), True),
    ],
)
def test_what_is_called_collapsed(rank: float, earlier: list[dict[str, Any]], fallen: bool) -> None:
    assert collapsed({"embedding_rank": rank, "settled": True}, earlier) == ["embedding_rank"] * fallen
    unsettled = [{"step": 0, "embedding_rank": 300.0, "settled": False}, *earlier]
    assert collapsed({"embedding_rank": rank, "settled": True}, unsettled) == ["embedding_rank"] * fallen
    assert collapsed({"embedding_rank": rank, "settled": False}, earlier) == []


def test_batch_norm_settles_by_its_momentum() -> None:
    layers = [torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3, momentum=None)]
    assert [settled(torch.nn.Sequential(*layers), step) for step in (0, 43, 44)] == [False, False, True]
    slow = torch.nn.Sequential(*layers, torch.nn.BatchNorm2d(3, momentum=0.01))
    assert [settled(slow, step) for step in (100, 458, 459)] == [False, False, True]
    assert settled(layers[0], 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "options"),
    [("test_efficientnet", {"bn_momentum": 0.01}), ("test_efficientnet", {}), ("test_vit", {})],
)
def test_a_run_that_has_not_begun_to_learn_has_not_collapsed(
    model: str, options: dict[str, Any], long_data: Path, tmp_path: Path
) -> None:
    """A long warm-up: nothing moves but BatchNorm's running statistics, and eval mode goes through strange networks."""
    changes = {"optim__epochs": 1, "optim__base_lr": 1e-12, "log__log_every_steps": 50, "student__model": model}
    recipe = toy_recipe("moco_v2", student__options=options, **changes)
    finish(recipe, str(long_data), tmp_path / "run", None)
    records = health_records(tmp_path / "run")
    assert len(records) == 5
    assert not any("collapsed" in row for row in records)


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


COLLAPSES = [(Shrinking, "embedding_rank"), (Dying, "student_rank")]


@pytest.mark.parametrize(("kind", "fallen"), slow_but(COLLAPSES, COLLAPSES[1:]))
def test_a_collapse_is_said_once_within_a_hundred_steps(
    kind: type[MoCoV2],
    fallen: str,
    long_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mocov2", "disco_lite0", "coss_lite0"])
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
