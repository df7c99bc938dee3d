"""Table, picture and ratios of a comparison, from made-up figures whose means are known."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from disco_zoo.compare import budget
from disco_zoo.compare.budget import Speed
from disco_zoo.compare.comparison import KNN, LINEAR, Comparison, Row
from disco_zoo.compare.report import comparison_page, comparison_table, draw_comparison, with_spread
from disco_zoo.config.recipe import load_recipe
from disco_zoo.data.open_source import open_source


def row(label: str, knn: list[float], base: list[float], *, speed: Speed | None, teacher: str | None = None) -> Row:
    figures = [{KNN: value, LINEAR: value + 5.0} for value in knn]
    differences = {metric: [a - b for a, b in zip(knn, base, strict=True)] for metric in (KNN, LINEAR)}
    return Row(label, f"x.{label}", label, teacher, "2", figures, differences, 1000.0, speed, 2048 if teacher else None)


def comparison(*, timed: bool = True) -> Comparison:
    base, better = [60.0, 62.0, 64.0], [63.0, 66.0, 69.0]
    speeds = [Speed(200.0, 1.0, (1.0, 1.0)), Speed(100.0, 0.5, (0.4, 0.6))] if timed else [None, None]
    rows = [
        row("mocov2", base, base, speed=speeds[0]),
        row("disco", better, base, speed=speeds[1], teacher="lite0"),
    ]
    return Comparison(
        title="disco_r18 by 2 methods",
        baseline="mocov2",
        rows=rows,
        beside={
            "untrained start": {KNN: 25.0, LINEAR: 30.0},
            "raw pixels": {KNN: 20.0},
            "teacher, 64 px": {KNN: 80.0, LINEAR: 85.0},
        },
        protocol="kNN",
        budget={
            "student": "disco_r18",
            "image_size": 32,
            "init": "random",
            "steps": 10,
            "batch_size": 64,
            "shortened": False,
            "optimizer": "adamw",
        },
        data={"name": "toy", "train_images": 640, "test_images": 100},
        seeds=[0, 1, 2],
        command="disco-zoo compare pocket",
        measured="2026-01-02T00:00:00",
        hardware={"accelerators": [], "cpu_cores": 2, "cpu": "a CPU"},
        versions={"torch": "2"},
    )


def test_rows_by_knn_with_mean_deviation_and_paired_differences() -> None:
    table = comparison_table(comparison())
    assert [found.label for found in comparison().ranked()] == ["disco", "mocov2"]
    assert table[2] == "| disco | yes | 2 | 2048 | 66.0 ± 3.0 | 71.0 ± 3.0 | +4.0 (+3.0 to +5.0) | 100 | 0.50 | 1000 |"
    assert table[3] == "| mocov2 | no | 2 | none | 62.0 ± 2.0 | 67.0 ± 2.0 |  | 200 | 1.00 | 1000 |"
    assert table[4].startswith("| *untrained start* |  |  |  | 25.0 | 30.0 |")
    assert len({line.count("|") for line in table}) == 1


def test_one_seed_has_no_spread_and_says_so() -> None:
    only = row("a", [50.0], [48.0], speed=None)
    assert only.deviation(KNN) is None
    assert with_spread(only, KNN) == "50.0"
    found = comparison()
    page = comparison_page(Comparison(**{**vars(found), "rows": [only], "seeds": [0], "baseline": "b"}))
    assert "+2.0 |" in page
    assert "no spread is known" in page


def test_without_timing_no_column_and_no_word_of_speed() -> None:
    page = comparison_page(comparison(timed=False))
    assert "images/s |" not in page
    assert "interleaved" not in page
    assert "images/s |" in comparison_page(comparison())


def test_the_page_says_how_to_make_it_again() -> None:
    page = comparison_page(comparison())
    for words in (
        "disco-zoo compare pocket",
        "2 CPU cores (a CPU)",
        "10 steps of 64 images",
        "Seeds: 0, 1, 2",
        "640 training",
    ):
        assert words in page


def test_the_picture_is_drawn_with_and_without_speed_and_the_same_each_time(tmp_path: Path) -> None:
    for name, timed in (("a", True), ("b", True), ("c", False)):
        draw_comparison(comparison(timed=timed), tmp_path / f"{name}.png")
    first, second, narrow = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert first == second
    assert first != narrow


def test_speed_is_the_median_of_rounds_and_ratios_are_taken_within_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    # Seconds a step in the order of timing: rounds of (first, second); the machine halves its speed in round two.
    seconds = itertools.chain([0.5, 1.0], [1.0, 2.5], [0.5, 1.0])
    monkeypatch.setattr(budget, "seconds_per_step", lambda *_: next(seconds))
    recipe = load_recipe("pocket/disco_r18.mocov2_fmnist")
    found = budget.measure_speeds({"a": recipe, "b": recipe}, open_source("sample"), "cpu", rounds=3)
    assert found["a"] == Speed(128.0, 1.0, (1.0, 1.0))
    assert found["b"] == Speed(64.0, 0.5, (0.4, 0.5))
