"""Who may write into a run folder, and what stands in it afterwards."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tiny_runs import differences, subprocess_environment, toy_parquet, toy_recipe, train

from disco_zoo.config.recipe import Recipe, load_recipe
from disco_zoo.core.environment import benchmark_line, hardware_line
from disco_zoo.errors import BadRunFolder
from disco_zoo.training.run import Run, RunOptions
from disco_zoo.training.run_data import open_data
from disco_zoo.training.run_folder import RunFolder, recipe_settings, require_begun
from disco_zoo.training.train import finish_training

pytestmark = pytest.mark.usefixtures("one_thread")

HOLD = """
import sys, pathlib
from filelock import FileLock
lock = FileLock(pathlib.Path(sys.argv[1]) / ".lock")
lock.acquire(timeout=0)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_parquet(tmp_path_factory.mktemp("data"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != ".lock"}


def test_folder_in_use_by_another_process_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        env=subprocess_environment(),
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BadRunFolder, match=r"is in use by another run.*--out"):
            RunFolder(folder, recipe_settings(toy_recipe()), resume=False)
        assert contents(folder) == {}
        holder.communicate("")
    RunFolder(folder, recipe_settings(toy_recipe()), resume=False).close()


def test_run_that_fails_to_build_leaves_its_folder_free(data: Path, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="larger than the data"):
        train(toy_recipe("moco_v2", optim__batch_size=64, method__queue_size=64), data, tmp_path)
    train(toy_recipe("moco_v2"), data, tmp_path, steps=1)


def test_finished_run_is_not_overwritten_without_resume(data: Path, tmp_path: Path) -> None:
    train(toy_recipe("moco_v2"), data, tmp_path, steps=1)
    before = contents(tmp_path)
    with pytest.raises(BadRunFolder, match=r"already holds a run\. Add --resume"):
        train(toy_recipe("moco_v2"), data, tmp_path)
    assert contents(tmp_path) == before


def test_finished_run_without_its_checkpoint_stays_as_it_is(data: Path, tmp_path: Path) -> None:
    recipe = toy_recipe("moco_v2", optim__schedule="constant", optim__epochs=1)
    train(recipe, data, tmp_path)
    (tmp_path / "checkpoint.pt").unlink()
    before = contents(tmp_path)

    def again(recipe: Recipe, data: Path = data, *, resume: bool = True, steps: int | None = None) -> Run:
        options = RunOptions(resume=resume, max_steps=steps, workers=0)
        with contextlib.closing(Run(recipe, open_data(recipe, str(data)), tmp_path, options, label="toy")) as run:
            assert run.train().step == 3
            facts = finish_training(run)
        assert facts == json.loads(before["run.json"])
        return run

    kept = again(recipe).parts.student.backbone.state_dict()
    for key, value in load_file(tmp_path / "student.safetensors").items():
        assert torch.equal(kept[key], value.to(kept[key].dtype))
    again(toy_recipe("moco_v2", optim__schedule="constant", optim__epochs=1, log__log_every_steps=2), steps=3)
    other = toy_parquet(tmp_path.parent / "other", num_train=27)
    longer = toy_recipe("moco_v2", optim__schedule="constant", optim__epochs=2)
    with pytest.raises(BadRunFolder, match=r"already holds a run\. Add --resume"):
        again(recipe, resume=False)
    with pytest.raises(BadRunFolder, match=r"3 steps, not 1, and has no checkpoint to go on from\. Choose another"):
        again(recipe, steps=1)
    with pytest.raises(BadRunFolder, match=r"3 steps, not 6, and has no checkpoint"):
        again(longer)
    with pytest.raises(BadRunFolder, match=r"another recipe \(seed: 0 there, 1 here\)"):
        again(recipe.model_copy(update={"seed": 1}))
    with pytest.raises(BadRunFolder, match="this run on other images"):
        again(recipe, other)
    assert contents(tmp_path) == before


def test_run_of_another_recipe_is_not_resumed_and_the_message_names_the_difference(data: Path, tmp_path: Path) -> None:
    train(toy_recipe("moco_v2"), data, tmp_path, steps=1)
    before = contents(tmp_path)
    with pytest.raises(BadRunFolder, match=r"another recipe \(optim\.base_lr: 1\.0 there, 0\.5 here\)"):
        train(toy_recipe("moco_v2", optim__base_lr=0.5), data, tmp_path, resume=True)
    assert contents(tmp_path) == before


def test_how_often_a_run_logs_may_change_on_resume(data: Path, tmp_path: Path) -> None:
    train(toy_recipe("moco_v2"), data, tmp_path, steps=1)
    train(toy_recipe("moco_v2", log__log_every_steps=3), data, tmp_path, resume=True, steps=3)
    assert load_recipe(str(tmp_path / "recipe.yaml")).log.log_every_steps == 3


def test_resume_where_nothing_has_begun_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRunFolder, match="holds no run to resume"):
        require_begun(tmp_path / "none", tmp_path / "none" / "baseline")
    (tmp_path / "pair" / "baseline").mkdir(parents=True)
    (tmp_path / "pair" / "baseline" / "recipe.yaml").write_text("name: x\n")
    require_begun(tmp_path / "pair", tmp_path / "pair" / "baseline")


def test_resume_before_the_first_checkpoint_starts_from_the_beginning(data: Path, tmp_path: Path) -> None:
    RunFolder(tmp_path, recipe_settings(toy_recipe("moco_v2")), resume=False).close()
    assert train(toy_recipe("moco_v2"), data, tmp_path, resume=True, steps=2)["position"]["step"] == 2


def test_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(BadRunFolder, match=r"cannot write to .*run: File exists\. Choose another"):
        RunFolder(tmp_path / "run", recipe_settings(toy_recipe()), resume=False)


def test_folder_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", denied)
    with pytest.raises(BadRunFolder, match=r"cannot write to .*: Permission denied\. Choose another folder with --out"):
        RunFolder(tmp_path / "run", recipe_settings(toy_recipe()), resume=False)


def test_full_disk_while_saving_keeps_the_last_checkpoint(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(toy_recipe("moco_v2"), data, tmp_path, steps=2)
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def full(state: object, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(BadRunFolder, match=r"no space left.*--resume"):
            train(toy_recipe("moco_v2"), data, tmp_path, resume=True)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert not list(tmp_path.glob("*.partial")) + list(tmp_path.glob(".*.partial"))
    assert train(toy_recipe("moco_v2"), data, tmp_path, resume=True)["position"]["step"] == 6


def test_damaged_checkpoint_is_named(data: Path, tmp_path: Path) -> None:
    train(toy_recipe("moco_v2"), data, tmp_path, steps=1)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(BadRunFolder, match=r"checkpoint\.pt is damaged"):
        train(toy_recipe("moco_v2"), data, tmp_path, resume=True)


def test_processes_that_do_not_write_neither_claim_nor_create(tmp_path: Path) -> None:
    first = RunFolder(tmp_path / "run", recipe_settings(toy_recipe()), resume=False)
    RunFolder(tmp_path / "run", recipe_settings(toy_recipe()), resume=False, writes=False).close()
    RunFolder(tmp_path / "other", recipe_settings(toy_recipe()), resume=False, writes=False)
    assert not (tmp_path / "other").exists()
    first.close()


def test_finished_folder_holds_facts_that_can_be_checked(data: Path, tmp_path: Path) -> None:
    recipe = toy_recipe()
    train(recipe, data, tmp_path)
    facts = json.loads((tmp_path / "run.json").read_text())
    student = tmp_path / "student.safetensors"
    assert facts["student"]["sha256"] == hashlib.sha256(student.read_bytes()).hexdigest()
    assert facts["student"]["size_bytes"] == student.stat().st_size
    assert (facts["steps"], facts["total_steps"], facts["seed"]) == (6, 6, 0)
    assert facts["data"].pop("source").endswith("toy_train.parquet")
    look = facts["data"].pop("look")
    assert (look["images"], look["classes"], look["labels_from"]) == (26, 3, "the column label")
    assert facts["data"].pop("matches_recipe")  # toy_recipe names no source of its own
    assert facts["data"] | {"fingerprint": ""} == {"id": "cifar10", "split": "train", "images": 26, "fingerprint": ""}
    assert len(facts["data"]["fingerprint"]) == 64
    assert facts["recipe_sha256"] == recipe.digest()
    assert facts["teacher"]["title"] == "test_resnet (random weights)"
    assert facts["versions"]["torch"] == importlib.metadata.version("torch")
    assert facts["hardware"]["cpu_cores"] >= 1
    assert load_recipe(str(tmp_path / "recipe.yaml")) == recipe
    with safe_open(student, framework="pt") as file:
        expected = {
            "network": "test_efficientnet",
            "recipe": "toy_disco",
            "recipe_sha256": recipe.digest(),
            "step": "6",
        }
        assert file.metadata() == expected
        assert {file.get_tensor(key).dtype for key in file.keys()} <= {torch.float16, torch.int64}  # noqa: SIM118


def test_a_benchmarks_line_names_machine_threads_and_torch() -> None:
    torch_version = importlib.metadata.version("torch")
    assert benchmark_line(1) == f"{hardware_line()}, 1 thread, torch {torch_version}"
    assert benchmark_line(2) == f"{hardware_line()}, 2 threads, torch {torch_version}"


@pytest.mark.parametrize(
    "changes",
    [
        {"optim__schedule": "constant"},
        {"optim__schedule": "cosine_step", "optim__restarts": {1: 0.5}},
        {"optim__schedule": "constant", "student__image_sizes": {0: [32], 0.5: [64]}, "student__image_size": 64},
    ],
)
def test_a_finished_run_goes_on_for_more_epochs_where_its_schedule_allows(
    changes: dict[str, Any], data: Path, tmp_path: Path
) -> None:
    long = toy_recipe("moco_v2", optim__epochs=2, **changes)
    short = toy_recipe("moco_v2", optim__epochs=1, **changes | {"optim__restarts": {}})
    whole = train(long, data, tmp_path / "whole")
    train(short, data, tmp_path / "parts")
    assert differences(train(long, data, tmp_path / "parts", resume=True), whole) == []
    assert load_recipe(str(tmp_path / "parts" / "recipe.yaml")).optim.epochs == 2
    with pytest.raises(BadRunFolder, match=r"optim.(epochs|restarts): .* there, .* here"):
        train(short, data, tmp_path / "parts", resume=True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {},
            r"cosine_step ends with epoch 2 .*begin it anew: --set 'optim.restarts={2: 0.5}'; or choose ",
        ),
        ({"optim__restarts": {1: 1.0}}, "a run of another recipe"),
        ({"optim__restarts": {3: 0.5}}, "cosine_step ends with epoch 2"),
        ({"optim__schedule": "seed_official"}, "a run of another recipe"),
        ({"seed": 1}, "a run of another recipe"),
    ],
)
def test_more_epochs_of_another_run_are_refused(changes: dict[str, int], words: str, tmp_path: Path) -> None:
    RunFolder(tmp_path, recipe_settings(toy_recipe("moco_v2")), resume=False).close()
    longer = toy_recipe("moco_v2", optim__epochs=9, **changes)
    with pytest.raises(BadRunFolder, match=words):
        RunFolder(tmp_path, recipe_settings(longer), resume=True)


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"optim__restarts": {1: 1.0}}, r"begin it anew: --set 'optim.restarts={1: 1.0, 3: 0.5}'"),
        ({"optim__restarts": {}, "optim__final_lr_fraction": 0.6}, r"--set 'optim.restarts={3: 0.8}'"),
        ({"optim__warmup_epochs": 3.0}, "To train on, choose another --out"),
    ],
)
def test_the_advice_for_more_epochs_can_be_followed(changes: dict[str, Any], advice: str, tmp_path: Path) -> None:
    once = toy_recipe("moco_v2", optim__epochs=3, **changes)
    RunFolder(tmp_path, recipe_settings(once), resume=False).close()
    with pytest.raises(BadRunFolder, match=advice):
        RunFolder(tmp_path, recipe_settings(toy_recipe("moco_v2", optim__epochs=9, **changes)), resume=True)


def test_a_refused_resume_leaves_the_recipe_as_it_was(data: Path, tmp_path: Path) -> None:
    short = toy_recipe("moco_v2", optim__schedule="constant", optim__epochs=1)
    train(short, data, tmp_path / "run")
    before = (tmp_path / "run" / "recipe.yaml").read_text()
    long = toy_recipe("moco_v2", optim__schedule="constant", optim__epochs=2)
    with pytest.raises(BadRunFolder, match="other images"):
        train(long, toy_parquet(tmp_path / "other", num_train=27), tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "recipe.yaml").read_text() == before
    train(short, data, tmp_path / "run", resume=True)


def test_more_epochs_and_what_decides_nothing_may_be_set_together(tmp_path: Path) -> None:
    constant = {"optim__schedule": "constant"}
    RunFolder(tmp_path, recipe_settings(toy_recipe("moco_v2", **constant)), resume=False).close()
    longer = toy_recipe("moco_v2", optim__epochs=9, optim__compile=True, log__log_every_steps=7, **constant)
    RunFolder(tmp_path, recipe_settings(longer), resume=True).close()
