"""What `disco-zoo reproduce` leaves: files, tables and pictures whose figures all come from the run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from tiny_runs import toy_parquet, toy_recipe

from disco_zoo.cli import main
from disco_zoo.config.recipe import Recipe
from disco_zoo.reproduction import job as reproduce

pytestmark = pytest.mark.usefixtures("one_thread")

NAME = "disco_effb0.disco_lite0_fmnist"


class Reproduced(NamedTuple):
    out: Path
    code: int
    stdout: str
    stderr: str
    results: dict[str, Any]


def toy_pair(name: str, overrides: list[str]) -> Recipe:
    """Instead of the pocket recipes: toy networks, with a teacher that looks at its own size."""
    assert list(overrides) == ["seed=2"]
    common = {"seed": 2, "optim__epochs": 1, "log__knn_every_epochs": 0.5}
    if "mocov2" in name:
        return toy_recipe("moco_v2", **common)
    return toy_recipe("disco", **common, reproduce__baseline="mocov2", teacher__image_size=48, eval__resize_size=32)


@pytest.fixture(scope="module")
def reproduced(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Reproduced:
    folder = tmp_path_factory.mktemp("reproduce")
    data = toy_parquet(folder, num_train=220, num_test=40)
    arguments = ["reproduce", NAME, "--data", str(data), "--out", str(folder / "run"), "--device", "cpu"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reproduce, "load_recipe", toy_pair)
        code, out, err = captured([*arguments, "--workers", "0", "--seed", "2"])
    results = json.loads((folder / "run" / "results.json").read_text())
    return Reproduced(folder / "run", code, out, err, results)


def captured(arguments: list[str]) -> tuple[int, str, str]:
    import contextlib
    import io

    from disco_zoo.core.console import console

    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(console, "width", 200)
        code = main(arguments)
    return code, out.getvalue(), err.getvalue()


def test_every_file_of_the_run_folder_is_there(reproduced: Reproduced) -> None:
    expected = {
        "run.json",
        "results.json",
        "recipe.yaml",
        "metrics.jsonl",
        "report.md",
        "model_card.md",
        "checkpoint.pt",
        "student.safetensors",
        "figures/curves.png",
        "figures/embedding_map.png",
        "baseline/run.json",
        "baseline/student.safetensors",
        "baseline/metrics.jsonl",
    }
    found = {p.relative_to(reproduced.out).as_posix() for p in reproduced.out.rglob("*") if p.is_file()}
    assert expected <= found
    assert not [name for name in found if name.endswith(".partial")]


def test_results_hold_all_rows_and_seed(reproduced: Reproduced) -> None:
    results = reproduced.results
    assert {"start", "baseline", "student", "teacher", "teacher_own_size"} <= results["figures"].keys()
    for subject in ("start", "baseline", "student", "teacher"):
        assert results["figures"][subject].keys() == {"knn1_top1", "knn20_top1", "knn200_top1", "linear_top1"}
    assert all(0 <= value <= 100 for metrics in results["figures"].values() for value in metrics.values())
    assert (results["name"], results["seed"]) == (NAME, 2)
    assert reproduced.code == (1 if results["verdict"] == "not reproduced" else 0)


def table_of(text: str) -> dict[str, list[str]]:
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {row[0]: row[1:] for row in rows}


def test_every_figure_of_the_report_comes_from_results(reproduced: Reproduced) -> None:
    report, figures = (reproduced.out / "report.md").read_text(), reproduced.results["figures"]
    rows = table_of(report)
    titles = {
        "start": "untrained start (random)",
        "baseline": "MoCo-v2 baseline",
        "student": "DisCo student",
        "teacher": "teacher, 32 px",
        "teacher_own_size": "teacher, 48 px",
    }
    for subject, title in titles.items():
        assert rows[title][0] == f"{figures[subject]['knn20_top1']:.1f}"
        assert rows[title][2] == f"{figures[subject]['linear_top1']:.1f}"
    assert f"Verdict: {reproduced.results['verdict']}" in report
    facts = json.loads((reproduced.out / "run.json").read_text())
    assert f"sha256 `{facts['student']['sha256']}`" in report
    assert facts["data"]["fingerprint"][:16] in report
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", report):
        assert (reproduced.out / picture).is_file()


def test_terminal_shows_the_same_table_plan_and_verdict(reproduced: Reproduced) -> None:
    figures = reproduced.results["figures"]
    for title, subject in (("DisCo student", "student"), ("MoCo-v2 baseline", "baseline")):
        line = next(line for line in reproduced.stdout.splitlines() if title in line)
        assert f"{figures[subject]['knn20_top1']:.1f}" in line
        assert f"{figures[subject]['linear_top1']:.1f}" in line
    assert f"Verdict: {reproduced.results['verdict']}" in reproduced.stdout
    for part in ("220 images", "run 1", "run 2", "27 steps of 8 images, seed 2", "time"):
        assert part in reproduced.stderr


@pytest.mark.parametrize("name", ["curves.png", "embedding_map.png"])
def test_pictures_are_not_blank(name: str, reproduced: Reproduced) -> None:
    with Image.open(reproduced.out / "figures" / name) as picture:
        pixels = np.asarray(picture.convert("L"), dtype=float)
    assert min(pixels.shape) >= 300
    assert pixels.std() > 5
    # Something is drawn in each quarter.
    height, width = (side // 2 for side in pixels.shape)
    for rows in (slice(0, height), slice(height, None)):
        for columns in (slice(0, width), slice(width, None)):
            assert pixels[rows, columns].std() > 1


def test_card_of_the_run_holds_its_own_figures(reproduced: Reproduced) -> None:
    card = (reproduced.out / "model_card.md").read_text()
    assert f"{reproduced.results['figures']['student']['linear_top1']:.1f}" in card
    assert "student.safetensors" in card
