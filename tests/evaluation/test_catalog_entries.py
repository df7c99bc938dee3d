"""From `evaluate --out` to a card: the rows must be the catalog's, and one card is of one model and protocol."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from disco_zoo.cli import main
from disco_zoo.errors import BadData
from disco_zoo.evaluation.table import as_yaml, measured_entries
from disco_zoo.zoo.catalog import load_catalog
from disco_zoo.zoo.model_card import render_card
from disco_zoo.zoo.schema import Measured


def result(value: float, *, seed: int = 0, model: str = "disco_effb0", **changes: Any) -> dict[str, Any]:
    row = {
        "subject": "student",
        "metric": "linear_top1",
        "values": [value],
        "seeds": [seed],
        "hardware": "2 cores",
        "protocol": "linear probe: fast, 64 px of 64",
        "command": f"disco-zoo … --seed {seed}",
        "date": f"2026-11-2{seed}",
    }
    return {"model": {"name": model}, "measured": [row | changes]}


def test_seeds_become_one_entry() -> None:
    (entry,) = measured_entries([result(50.0), result(52.0, seed=1), result(54.0, seed=2)])
    assert (entry.values, entry.seeds, entry.mean) == ([50.0, 52.0, 54.0], [0, 1, 2], 52.0)
    assert entry.date == datetime.date(2026, 11, 22)
    assert entry.command == "disco-zoo … --seed 0"


def test_student_teacher_and_start_stand_in_one_card() -> None:
    rows = [result(50.0), result(60.0, model="lite0", subject="teacher"), result(30.0, model="s", subject="start")]
    assert [entry.subject for entry in measured_entries(rows)] == ["student", "teacher", "start"]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (result(1.0, seed=1, protocol="disco"), "one place for linear_top1, and these are two protocols: .* and disco"),
        (result(1.0, seed=1, model="disco_r18"), "disco_effb0 and disco_r18 are two models"),
        ({"model": {"name": "a"}, "measured": [{"metric": "x"}]}, "make them again"),
        ({"model": {"name": "a"}}, "make them again"),
    ],
)
def test_what_does_not_belong_together_is_refused(other: dict[str, Any], message: str) -> None:
    with pytest.raises(BadData, match=message):
        measured_entries([result(50.0), other])


def test_looks_and_random_weights_have_no_place() -> None:
    with pytest.raises(BadData, match="nothing for a card"):
        measured_entries([{"model": {"name": "a"}, "measured": []}])


def test_the_printed_rows_make_a_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = {
        "task": "linear",
        "preset": "fast",
        "protocol": "p",
        "figures": {"linear_top1": 50.0},
        "num_scored": 10,
        "intervals": {"linear_top1": [1, 99]},
        "look": False,
        "command": "c",
        "data": {"train": "x", "test": "x", "num_train": 9, "num_test": 10, "test_fingerprint": "f"},
    }
    model = {"name": "disco_effb0", "untrained": False, "backbone_sha256": "s"}
    files = [tmp_path / f"{seed}.json" for seed in (0, 1)]
    for seed, file in enumerate(files):
        file.write_text(json.dumps({**result(81.25 + seed, seed=seed), **whole, "model": model, "seed": seed}))
    assert main(["evaluate", "table", *map(str, files), "--catalog"]) == 0
    text = capsys.readouterr().out
    rows = [Measured.model_validate(row) for row in yaml.safe_load(text)["measured"]]
    assert as_yaml(rows) == text
    catalog = load_catalog()
    card = render_card(catalog.resolve("disco_effb0").model_copy(update={"measured": rows}), catalog)
    assert "| this model | 81.75 ± 0.71 (2 seeds) |" in card
    assert "linear probe: fast, 64 px of 64" in card
