"""`disco-zoo compare`: one budget or a refusal, whole runs, honest figures, one table and one picture."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest
from forked import Forked
from safetensors.torch import load_file
from tiny_runs import command, differences, subprocess_environment, toy_parquet, toy_recipe, toy_recipe_file, train

from disco_zoo.cli import main
from disco_zoo.compare import runs
from disco_zoo.compare.budget import fitting_overrides, label_of, load_compared, require_same_start
from disco_zoo.compare.comparison import what_is_compared
from disco_zoo.config.recipe import Recipe, load_recipe
from disco_zoo.core.yaml_io import as_text, read_value
from disco_zoo.data.open_source import open_source
from disco_zoo.errors import BadRecipe, BadRunFolder, UnknownName
from disco_zoo.methods import METHODS
from disco_zoo.training.run_data import open_data

pytestmark = pytest.mark.usefixtures("one_thread")
BOTH = ["pocket/disco_r18.mocov2_fmnist", "pocket/disco_r18.seed_lite0_fmnist"]


def toy_pair(folder: Path) -> list[Path]:
    """MoCo-v2 and DisCo on the toy network, by names from which a comparison can make labels."""
    return [
        toy_recipe_file(folder, "moco_v2", name="toy.mocov2_toy", optim__epochs=1),
        toy_recipe_file(folder, "disco", name="toy.disco_toy", optim__epochs=1),
    ]


def test_a_scale_is_all_its_recipes_of_one_student() -> None:
    recipes = load_compared(["pocket"], "disco_r18", [])
    assert {recipe.student.model for recipe in recipes.values()} == {"disco_r18"}
    labels = [label_of(recipe) for recipe in recipes.values()]
    assert {"mocov2", "disco", "disco_only_mse", "seed", "seed_small", "rkd_disco"} <= set(labels)
    assert len(set(labels)) == len(recipes)
    assert {recipe.method["name"] for recipe in recipes.values()} == set(METHODS)


@pytest.mark.parametrize(
    ("names", "student", "overrides", "words"),
    [
        (BOTH[:1], "disco_r18", [], "needs two recipes"),
        (["pocket"], "disco_r34", [], "has no recipes of disco_r34"),
        (["pokcet"], "disco_r18", [], "Did you mean 'pocket'"),
        ([BOTH[0], "pocket/disco_effb0.disco_lite0_fmnist"], "", [], "student.model is disco_r18 in"),
        ([*BOTH, "cifar10/disco_r18.disco_lite0_cifar10"], "", [], "Type: --set"),
    ],
)
def test_what_is_no_comparison_is_refused(names: list[str], student: str, overrides: list[str], words: str) -> None:
    with pytest.raises((BadRecipe, UnknownName), match=words):
        load_compared(names, student, overrides)


def test_a_budget_that_differs_is_told_as_it_is_typed(tmp_path: Path) -> None:
    whole = toy_recipe_file(tmp_path, "moco_v2", name="toy.mocov2_toy", eval__resize_size=None)
    part = toy_recipe_file(tmp_path, "disco", name="toy.disco_toy", eval__resize_size=40)
    with pytest.raises(BadRecipe, match=r"is null in .* and 40 in .* Type: --set eval\.resize_size=null$"):
        load_compared([str(whole), str(part)], "", [])
    assert read_value(as_text([0.229, 0.224, 0.225])) == [0.229, 0.224, 0.225]
    assert (as_text(None), as_text(True), as_text("a/b")) == ("null", "true", "a/b")


def test_an_override_makes_budgets_equal_and_the_teachers_go_where_there_is_one() -> None:
    overrides = ["optim.epochs=7", "teacher.image_size=96"]
    recipes = load_compared(BOTH, "", overrides)
    assert {recipe.optim.epochs for recipe in recipes.values()} == {7}
    teacher = recipes[BOTH[1]].teacher
    assert teacher is not None
    assert teacher.image_size == 96
    assert fitting_overrides(BOTH[0], overrides) == ["optim.epochs=7"]


def test_another_start_is_found_before_any_training(tmp_path: Path) -> None:
    source = open_source(toy_parquet(tmp_path))
    recipes = {"a": toy_recipe("moco_v2"), "b": toy_recipe("disco")}
    require_same_start(recipes, [0, 1], source)
    recipes["b"] = toy_recipe("disco", student__options={"drop_rate": 0.1}, student__model="test_resnet")
    with pytest.raises(BadRecipe, match="b and a do not start from the same weights with seed 0"):
        require_same_start(recipes, [0, 1], source)


def test_recipes_of_one_method_are_not_called_methods() -> None:
    names = ["pocket/disco_r18.mocov2_fmnist", "pocket/disco_r18.disco_lite0_fmnist"]
    recipes = [load_recipe(name) for name in names]
    assert what_is_compared(recipes) == "2 methods"
    assert what_is_compared([recipes[1], recipes[1]]) == "2 recipes of disco"


@pytest.mark.slow
def test_every_pocket_recipe_starts_from_the_same_weights() -> None:
    require_same_start(load_compared(["pocket"], "disco_r18", []), [0], open_source("sample"))


@pytest.mark.slow
def test_two_methods_end_to_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", subprocess_environment())
    data = toy_parquet(tmp_path, num_train=210, num_test=30)
    out = tmp_path / "out"
    arguments = ["compare", *toy_pair(tmp_path), "--data", data, "--out", out, "--workers", 0, "--jobs", 2]
    arguments += ["--timing-rounds", 2, "--json"]
    assert main([*map(str, arguments)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["label"] for row in found["rows"]] == ["mocov2", "disco"]  # the baseline first
    assert found["budget"]["steps"] == 210 // 8
    assert found["data"] == {"name": "toy_train.parquet", "train_images": 210, "test_images": 30}
    for row in found["rows"]:
        folder = out / row["recipe"] / "seed0"
        facts = json.loads((folder / "run.json").read_text())
        assert facts["steps"] == found["budget"]["steps"]
        assert facts["peak_memory_mib"] == row["peak_memory_mib"] > 100
        assert not (folder / "checkpoint.pt").exists()
        assert row["speed"]["images_per_s"] > 0
    assert found["rows"][0]["speed"]["ratio"] == 1.0
    page = (out / "comparison.md").read_text()
    assert "| disco | yes | 2 | 32 |" in page
    assert "*untrained start*" in page
    assert (out / "comparison.png").stat().st_size > 10_000

    # Everything is finished: a second command trains nothing, and tells the same figures.
    assert main([*map(str, arguments)]) == 2
    assert "--resume" in capsys.readouterr().err
    before = {path: path.stat().st_mtime_ns for path in out.rglob("student.safetensors")}
    assert main([*map(str, arguments), "--resume"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert [row["figures"] for row in again["rows"]] == [row["figures"] for row in found["rows"]]
    assert {path: path.stat().st_mtime_ns for path in out.rglob("student.safetensors")} == before

    # Nor are the networks of these images told as trained on others.
    (tmp_path / "other").mkdir()
    others = toy_parquet(tmp_path / "other", num_train=212, num_test=30)
    assert main([*(str(others) if word == data else str(word) for word in arguments), "--resume"]) == 2
    assert "on other images. Choose another --out" in capsys.readouterr().err


class RunInFork(Forked):
    """Instead of the new process of a run: a fork, whose words go to the log as well."""

    def __init__(self, command: list[str], *, stdout: IO[bytes], env: dict[str, str], **_: Any) -> None:
        super().__init__(command, env=env, start_new_session=True)
        self.log = Path(stdout.name)

    def poll(self) -> int | None:
        if self.returncode is not None and not self.stdin.closed:
            self.log.write_text("".join(self.communicate()))
        return self.returncode


def test_a_run_that_fails_is_named_with_its_reason_and_the_other_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", subprocess_environment())
    monkeypatch.setattr(runs, "subprocess", SimpleNamespace(**{**vars(subprocess), "Popen": RunInFork}))
    data = toy_parquet(tmp_path, num_train=210, num_test=30)
    pair = toy_pair(tmp_path)
    # Only the process of the run finds this fault: its folder is in the way.
    (tmp_path / "out" / "toy.disco_toy" / "seed0" / "student.safetensors").mkdir(parents=True)
    arguments = ["compare", *pair, "--data", data, "--out", tmp_path / "out", "--workers", 0, "--steps", 2]
    assert main([*map(str, arguments)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("Error: the run of disco, seed 0 failed: ")
    assert "--resume" in error
    assert (tmp_path / "out" / "toy.mocov2_toy" / "seed0" / "student.safetensors").is_file()


@pytest.mark.parametrize("option", ["--out", "--report"])
def test_a_folder_that_cannot_be_is_told_before_any_training(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = toy_parquet(tmp_path, num_train=210, num_test=30)
    (tmp_path / "file").write_text("in the way")
    assert main(["compare", *map(str, toy_pair(tmp_path)), "--data", str(data), option, "file/below"]) == 2
    (error,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("Error: "))
    assert error.startswith("Error: Cannot write to file/below: Not a directory. Choose another folder")
    assert not [*tmp_path.rglob("run.json")]


@pytest.mark.slow
def test_ctrl_c_saves_each_run_and_resume_ends_in_the_undisturbed_weights(tmp_path: Path) -> None:
    data = toy_parquet(tmp_path, num_train=210, num_test=30)
    pair = toy_pair(tmp_path)

    def start(out: Path, *more: str) -> subprocess.Popen[str]:
        arguments = ["compare", *pair, "--data", data, "--out", out, "--workers", 0, "--timing-rounds", 0]
        arguments += ["--set", "optim.epochs=8", *more]
        return subprocess.Popen(command(*arguments), env=subprocess_environment(), stderr=subprocess.PIPE, text=True)

    def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
        """Exit code and, of a failure, the last line of stderr."""
        lines = process.communicate(timeout=240)[1].splitlines()
        return process.returncode, lines[-1] if process.returncode else ""

    assert ended(start(tmp_path / "whole")) == (0, "")
    disturbed = start(tmp_path / "cut")
    metrics = tmp_path / "cut" / "toy.mocov2_toy" / "seed0" / "metrics.jsonl"
    while not (metrics.is_file() and len(metrics.read_text().splitlines()) > 20):
        assert disturbed.poll() is None
        time.sleep(0.05)
    disturbed.send_signal(signal.SIGINT)
    exit_code, error = ended(disturbed)
    assert exit_code == 130
    assert "nothing is lost" in error
    assert (metrics.parent / "checkpoint.pt").is_file()
    assert ended(start(tmp_path / "cut", "--resume")) == (0, "")
    for recipe in ("toy.mocov2_toy", "toy.disco_toy"):
        whole, cut = (load_file(tmp_path / way / recipe / "seed0" / "student.safetensors") for way in ("whole", "cut"))
        assert differences(whole, cut) == []


def test_a_finished_run_of_other_settings_or_length_is_not_trained_over(tmp_path: Path) -> None:
    data = toy_parquet(tmp_path)
    recipe = toy_recipe("moco_v2", optim__epochs=1)
    images = open_data(recipe, str(data)).fingerprints
    train(recipe, data, tmp_path / "run")

    def planned(recipe: Recipe = recipe, steps: int = 3) -> runs.PlannedRun:
        return runs.PlannedRun("toy", "toy", recipe, tmp_path / "run", steps, images)

    assert planned().finished()
    assert not planned(steps=2).finished()  # its checkpoint is there: the run itself says what does not fit
    (tmp_path / "run" / "checkpoint.pt").unlink()
    assert planned().finished()
    before = (tmp_path / "run" / "student.safetensors").read_bytes()
    for odd, words in (
        (planned(steps=2), "steps: 3 there, 2 here"),
        (planned(recipe.model_copy(update={"seed": 1})), "seed: 0 there, 1 here"),
    ):
        with pytest.raises(BadRunFolder, match=rf"holds a finished run of other settings \({words}\)\. Choose another"):
            runs.train_all([odd], [], jobs=1, resume=True)
    assert (tmp_path / "run" / "student.safetensors").read_bytes() == before


def test_the_recorded_recipe_is_the_one_that_ran() -> None:
    """`finished` rests on digests: a recipe with another seed or key is another run."""
    recipe = load_recipe(BOTH[0])
    assert recipe.digest() != recipe.model_copy(update={"seed": 1}).digest()
