"""`disco-zoo evaluate table`: what may stand side by side, and what may not."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from disco_zoo.cli import main
from disco_zoo.errors import BadData
from disco_zoo.evaluation.table import as_markdown, read_results, result_tables
from disco_zoo.zoo.facts import metric_title


def result(
    model: str = "a",
    *,
    task: str = "linear",
    mode: str = "frozen",
    preset: str = "fast",
    top1: float = 50.0,
    seed: int = 0,
    **changes: Any,
) -> dict[str, Any]:
    values: dict[str, Any] = {
        "task": task,
        "preset": preset,
        "protocol": f"{task} {mode}: {preset}, 64 px of 64",
        "model": {"name": model, "untrained": False, "backbone_sha256": f"sha of {model}"},
        "data": {
            "train": "x.parquet",
            "test": "x.parquet",
            "num_train": 50_000,
            "num_test": 10_000,
            "train_fingerprint": "t",
            "test_fingerprint": "f",
        },
        "figures": {f"{task}_top1": top1},
        "intervals": {f"{task}_top1": [top1 - 1, top1 + 1]},
        "num_scored": 10_000,
        "look": False,
        "seed": seed,
        "command": f"disco-zoo evaluate {task} {model} --seed {seed}",
        "details": {"mode": mode},
    }
    for path, value in changes.items():
        *parents, key = path.split("__")
        place = values
        for parent in parents:
            place = place[parent]
        place[key] = value
    return values


def write(folder: Path, *results: dict[str, Any]) -> list[Path]:
    paths = [folder / f"{number}.json" for number in range(len(results))]
    for path, values in zip(paths, results, strict=True):
        path.write_text(json.dumps(values))
    return paths


def test_models_are_columns_and_protocols_rows() -> None:
    (table,) = result_tables(
        [
            result("a", top1=50.0),
            result("b", top1=60.0),
            result("b", preset="moco", top1=55.0),
            result("b", top1=10.0, model__untrained=True),
        ]
    )
    assert table.title == "Linear probe, frozen backbone"
    assert table.header == ("protocol", "figure", "a", "b", "b, random weights")
    title = metric_title("linear_top1")
    assert table.rows == (
        ("fast", title, "50.00 [49.0, 51.0]", "60.00 [59.0, 61.0]", "10.00 [9.0, 11.0]"),
        ("moco", title, "–", "55.00 [54.0, 56.0]", "–"),
    )
    assert "moco: linear frozen: moco, 64 px of 64" in table.notes


@pytest.mark.parametrize(
    "other",
    [
        {"mode": "finetune"},
        {"task": "transfer"},
        {"look": True},
        {"data__test_fingerprint": "g"},
        {"data__num_train": 10_000},
    ],
)
def test_what_does_not_compare_gets_a_table_of_its_own(other: dict[str, Any]) -> None:
    assert len(result_tables([result("a"), result("b")])) == 1
    assert len(result_tables([result("a"), result("b", **other)])) == 2


def test_shares_of_the_labels_stand_in_one_table() -> None:
    results = [
        result(task="semi", preset=preset, data__num_train=number) for preset, number in (("1 %", 500), ("10 %", 5000))
    ]
    (table,) = result_tables(results)
    assert [row[0] for row in table.rows] == ["1 %", "10 %"]


def test_seeds_become_mean_and_deviation() -> None:
    (table,) = result_tables([result(top1=value, seed=seed) for seed, value in enumerate((50.0, 51.0, 53.0))])
    mean, deviation = statistics.mean((50, 51, 53)), statistics.stdev((50, 51, 53))
    assert table.rows[0][2] == f"{mean:.2f} ± {deviation:.2f} (3 seeds)"


def test_equal_presets_of_unequal_protocols_are_told_apart() -> None:
    (table,) = result_tables([result("a"), result("b", protocol="linear frozen: fast, 96 px of 96")])
    assert [row[0] for row in table.rows] == ["linear frozen: fast, 64 px of 64", "linear frozen: fast, 96 px of 96"]


def test_one_name_for_two_models_is_refused() -> None:
    with pytest.raises(BadData, match="'a' stands for 2 different weights"):
        result_tables([result("a"), result("a", preset="moco", model__backbone_sha256="other")])
    drawn = [result("a", seed=seed, model__untrained=True, model__backbone_sha256=str(seed)) for seed in (0, 1)]
    assert len(result_tables(drawn)) == 1  # random weights differ by seed


def test_the_same_measurement_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"0\.json and .*1\.json are the same measurement"):
        read_results(write(tmp_path, result(top1=50.0), result(top1=51.0)))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"task": "knn"}'])
def test_other_files_are_refused_in_one_line(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other.json").write_text(text)
    assert main(["evaluate", "table", str(tmp_path / "other.json")]) == 2
    message = capsys.readouterr().err
    assert "other.json is no result of `disco-zoo evaluate --out`" in message
    assert message.count("\n") == 1


def test_the_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = write(tmp_path, result("a", confidence="95 %"), result("b", task="knn"))
    assert main(["evaluate", "table", *map(str, paths), "--out", str(tmp_path / "table.md")]) == 0
    screen = capsys.readouterr().out
    assert "Linear probe" in screen
    assert "Nearest neighbours" in screen
    page = (tmp_path / "table.md").read_text()
    assert "| fast | linear probe, top-1 | 50.00 [49.0, 51.0] |" in page
    assert "```\ndisco-zoo evaluate linear a --seed 0\ndisco-zoo evaluate knn b --seed 0\n```" in page
    assert as_markdown(result_tables(read_results(paths))) == page


@pytest.mark.parametrize(
    ("metric", "title"),
    [
        ("linear_last_top1", "linear probe, last epoch, top-1"),
        ("knn_best_top1", "kNN (best k), top-1"),
        ("transfer_frozen_top5", "transfer, frozen, top-5"),
        ("semi1_finetune_last_top1", "1 % of the labels, fine-tuned, last epoch, top-1"),
        ("semi0_5_frozen_top1", "0.5 % of the labels, frozen, top-1"),
        ("box_ap", "box_ap"),
    ],
)
def test_metrics_have_titles(metric: str, title: str) -> None:
    assert metric_title(metric) == title


def test_other_training_images_of_the_same_number_are_another_measurement(tmp_path: Path) -> None:
    paths = write(tmp_path, result(), result(data__train_fingerprint="u"))
    assert len(result_tables(read_results(paths))) == 2
    paths = write(tmp_path, result(task="semi"), result(task="semi", data__train_fingerprint="u"))
    with pytest.raises(BadData, match="same measurement"):
        read_results(paths)
