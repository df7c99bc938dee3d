"""Reproduced or not: the arithmetic, and what decides the exit code."""

from __future__ import annotations

import datetime
import math
import statistics
from typing import Any

import pytest

from disco_zoo.config.recipe import load_recipe
from disco_zoo.data.open_source import open_source
from disco_zoo.data.subsets import JoinedSource
from disco_zoo.reproduction.job import _why_not
from disco_zoo.reproduction.verdict import judge
from disco_zoo.training.run import RunOptions
from disco_zoo.training.run_data import Data
from disco_zoo.zoo.catalog import load_catalog
from disco_zoo.zoo.schema import Checkpoint, Measured

RECIPE = load_recipe("pocket/disco_effb0.disco_lite0_fmnist")
SAMPLE = Data(open_source("sample"), open_source("sample", "test"))

# scipy.stats.t.ppf(0.995, n - 1) for n = 3, 4, 5, 10, to four places.
T_QUANTILE = {3: 9.9248, 4: 5.8409, 5: 4.6041, 10: 3.2498}


def measured(metric: str, *values: float, subject: str = "student") -> Measured:
    return Measured(
        subject=subject,
        metric=metric,
        values=list(values),
        seeds=[*range(len(values))],
        protocol="p",  # type: ignore[arg-type]
        command="c",
        hardware="h",
        date=datetime.date(2025, 1, 1),
    )


def checkpoint(*entries: Measured) -> Checkpoint:
    row = load_catalog().checkpoints["disco_effb0.disco_lite0_fmnist"]
    return row.model_copy(update={"measured": list(entries)})


@pytest.mark.parametrize(
    "values",
    [
        (70.0, 72.0, 71.5),
        (60.1, 61.9, 60.7, 62.3),
        (80.0, 81.0, 82.5, 79.0, 80.5),
        (*range(50, 60),),
    ],
)
def test_allowed_difference_is_the_99_percent_prediction_interval(values: tuple[float, ...]) -> None:
    n = len(values)
    expected = T_QUANTILE[n] * statistics.stdev(values) * math.sqrt(1 + 1 / n)
    assert measured("knn20_top1", *values).allowed_difference == pytest.approx(expected, rel=1e-4)


def test_three_seeds_that_agree_by_chance_still_allow_half_a_point() -> None:
    assert measured("knn20_top1", 70.0, 70.0, 70.0).allowed_difference == 0.5


@pytest.mark.parametrize("values", [(70.0,), (70.0, 75.0)])
def test_fewer_than_three_seeds_do_not_judge(values: tuple[float, ...]) -> None:
    entry = measured("knn20_top1", *values)
    assert entry.allowed_difference is None
    verdict = judge(checkpoint(entry), {"student": {"knn20_top1": 10.0}})
    assert (verdict.outcome, verdict.exit_code) == ("not judged", 0)
    assert "three seeds" in verdict.why


@pytest.mark.parametrize(
    ("value", "outcome", "exit_code"),
    [
        (70.5, "reproduced", 0),
        (69.5, "reproduced", 0),
        (70.0, "reproduced", 0),
        (70.6, "not reproduced", 1),
        (69.4, "not reproduced", 1),
        (float("nan"), "not reproduced", 1),
    ],
)
def test_outcome_and_exit_code_at_the_edges_of_half_a_point(value: float, outcome: str, exit_code: int) -> None:
    verdict = judge(checkpoint(measured("knn20_top1", 70.0, 70.0, 70.0)), {"student": {"knn20_top1": value}})
    assert (verdict.outcome, verdict.exit_code) == (outcome, exit_code)


def test_one_figure_off_is_enough_and_the_worst_is_named() -> None:
    row = checkpoint(measured("knn20_top1", *[70.0] * 3), measured("linear_top1", *[80.0] * 3))
    verdict = judge(row, {"student": {"knn20_top1": 71.0, "linear_top1": 77.0}})
    assert verdict.exit_code == 1
    assert verdict.why == "linear_top1 is -3.0 points off, 0.5 are allowed"
    assert [c.metric for c in verdict.comparisons if not c.holds] == ["knn20_top1", "linear_top1"]


def test_only_the_student_decides() -> None:
    row = checkpoint(measured("knn20_top1", *[70.0] * 3), measured("knn20_top1", *[50.0] * 3, subject="baseline"))
    figures = {"student": {"knn20_top1": 70.0}, "baseline": {"knn20_top1": 10.0}, "teacher": {"knn20_top1": 1.0}}
    assert judge(row, figures).outcome == "reproduced"


@pytest.mark.parametrize(
    ("overrides", "options", "why"),
    [
        ([], {"max_steps": 20}, "shortened to 20 steps"),
        (["optim.epochs=2"], {}, "the recipe was changed (optim.epochs=2)"),
        ([], {}, ""),
    ],
)
def test_shortened_and_changed_runs_are_not_judged(overrides: list[str], options: dict[str, Any], why: str) -> None:
    reason = _why_not(checkpoint(), RECIPE, SAMPLE, overrides, RunOptions(**options))
    assert reason.startswith(why)
    assert bool(reason) == bool(why)
    row = checkpoint(measured("knn20_top1", 70.0, 70.0, 70.0))
    verdict = judge(row, {"student": {"knn20_top1": 10.0}}, why_not=reason)
    assert verdict.outcome == ("not judged" if why else "not reproduced")
    assert verdict.exit_code == (0 if why else 1)
    assert verdict.comparisons[0].difference == -60.0


def test_a_run_on_other_data_is_not_judged() -> None:
    other = Data(open_source("sample", "test"), None)
    assert _why_not(checkpoint(), RECIPE, other, [], RunOptions()).startswith("other data: 2000 images where")


def test_a_run_with_extra_images_of_ones_own_is_not_judged() -> None:
    extra = JoinedSource(SAMPLE.train, open_source("sample", "test"), 1)
    data = Data(SAMPLE.train, SAMPLE.test, extra=extra)
    overrides = ["data.extra_id=custom", "data.extra_source=sample"]
    recipe = load_recipe("pocket/disco_effb0.disco_lite0_fmnist", overrides)
    reason = _why_not(checkpoint(), recipe, data, overrides, RunOptions())
    assert reason == "other data: extra images of your own"


def test_every_judgeable_row_of_the_catalog_has_its_seeds() -> None:
    for row in load_catalog().checkpoints.values():
        for entry in row.measured:
            assert len(entry.values) == len(entry.seeds) == len({*entry.seeds})
