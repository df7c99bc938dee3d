"""A run that was interrupted and resumed ends in the same bits as one that was not."""

from __future__ import annotations

import itertools
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import Forked
from slow_params import slow_but
from tiny_runs import (
    STEPS_PER_EPOCH,
    checkpoint_of,
    command,
    differences,
    toy_parquet,
    toy_recipe,
    toy_recipe_file,
    train,
)

from disco_zoo.cli import main
from disco_zoo.core.checkpoint import stated_network
from disco_zoo.errors import Interrupted
from disco_zoo.training.metrics import read_metrics
from disco_zoo.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")

ALL_STEPS = 2 * STEPS_PER_EPOCH
AT_EPOCHS_END, MID_EPOCH = STEPS_PER_EPOCH, STEPS_PER_EPOCH + 1


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_parquet(tmp_path_factory.mktemp("data"))


def dropping_recipe(method: str, **changes: Any) -> Any:
    return toy_recipe(method, student__model="dropping_student", **changes)


@pytest.fixture(scope="module")
def straight(one_thread: None, data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One undisturbed run of each method."""
    folders = {method: tmp_path_factory.mktemp("straight") / method for method in ("disco", "moco_v2")}
    for method, folder in folders.items():
        train(dropping_recipe(method), data, folder)
    return folders


def losses(folder: Path) -> list[tuple[int, float, float]]:
    return [(row["step"], row["loss"], row["lr"]) for row in read_metrics(folder) if "loss" in row]


STOPS = itertools.product(("disco", "moco_v2"), (AT_EPOCHS_END, MID_EPOCH), (0, 1))


@pytest.mark.parametrize(
    ("method", "stop", "workers"), slow_but(STOPS, [("disco", MID_EPOCH, 1), ("moco_v2", AT_EPOCHS_END, 0)])
)
def test_resumed_run_equals_straight_run_bit_by_bit(
    method: str, stop: int, workers: int, data: Path, straight: dict[str, Path], tmp_path: Path
) -> None:
    recipe = dropping_recipe(method)
    half = train(recipe, data, tmp_path / "run", steps=stop, workers=workers)
    assert half["position"]["step"] == stop
    torch.manual_seed(99)  # whatever another process would have drawn
    resumed = train(recipe, data, tmp_path / "run", resume=True, workers=workers)
    assert resumed["position"]["step"] == ALL_STEPS
    assert differences(resumed, checkpoint_of(straight[method])) == []
    assert losses(tmp_path / "run") == losses(straight[method])
    assert [step for step, _, _ in losses(tmp_path / "run")] == [*range(1, ALL_STEPS + 1)]
    exported, expected = (folder / "student.safetensors" for folder in (tmp_path / "run", straight[method]))
    assert exported.read_bytes() == expected.read_bytes()
    assert stated_network(exported) == "dropping_student"


def test_dropout_matters_in_these_runs(data: Path, straight: dict[str, Path], tmp_path: Path) -> None:
    """If the random state were not restored, the tests above would see it."""
    recipe = dropping_recipe("moco_v2")
    train(recipe, data, tmp_path, steps=MID_EPOCH)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    state["random"][0]["cpu"] = torch.Generator().manual_seed(5).get_state()
    torch.save(state, tmp_path / "checkpoint.pt")
    assert differences(train(recipe, data, tmp_path, resume=True), checkpoint_of(straight["moco_v2"])) != []


@pytest.mark.parametrize(
    "changes",
    [
        {"optim__optimizer": "adamw", "optim__base_lr": 0.1, "optim__warmup_epochs": 0.5},
        {"optim__accumulation_steps": 2, "optim__schedule": "cosine_epoch"},
        pytest.param({"optim__precision": "bf16"}, marks=pytest.mark.slow),
    ],
    ids=["adamw_warmup", "accumulation", "bf16"],
)
def test_resume_is_exact_with_other_optimisers(changes: dict[str, Any], data: Path, tmp_path: Path) -> None:
    recipe = toy_recipe("disco", **changes)
    whole = train(recipe, data, tmp_path / "whole")
    train(recipe, data, tmp_path / "parts", steps=MID_EPOCH)
    assert differences(train(recipe, data, tmp_path / "parts", resume=True), whole) == []


def test_workers_do_not_change_training(data: Path, straight: dict[str, Path], tmp_path: Path) -> None:
    state = train(dropping_recipe("disco"), data, tmp_path / "run", workers=2)
    assert differences(state, checkpoint_of(straight["disco"])) == []


def test_online_knn_does_not_change_training(data: Path, straight: dict[str, Path], tmp_path: Path) -> None:
    state = train(dropping_recipe("disco", log__knn_every_epochs=0.34), data, tmp_path / "run")
    knn = [row["knn20_top1"] for row in read_metrics(tmp_path / "run") if "knn20_top1" in row]
    assert len(knn) == ALL_STEPS
    assert all(0 <= value <= 100 for value in knn)
    # Only what logs may differ; the digest of the recipe leaves that out.
    assert differences(state, checkpoint_of(straight["disco"])) == []


def test_checkpoints_in_between_do_not_change_training(data: Path, straight: dict[str, Path], tmp_path: Path) -> None:
    state = train(dropping_recipe("disco", log__checkpoint_every_steps=1), data, tmp_path / "run")
    assert differences(state, checkpoint_of(straight["disco"])) == []


def test_another_seed_gives_another_run(data: Path, straight: dict[str, Path], tmp_path: Path) -> None:
    state = train(dropping_recipe("disco", seed=1), data, tmp_path / "run")
    changed = differences(state, checkpoint_of(straight["disco"]))
    assert any("queue" in path for path in changed)
    assert any("backbone" in path for path in changed)


def test_run_killed_after_a_checkpoint_repeats_the_lost_steps_without_duplicate_records(
    data: Path, straight: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Power fails in step 6; the last checkpoint is of step 4."""
    recipe = dropping_recipe("moco_v2", log__checkpoint_every_steps=2)
    micro_step = Trainer._micro_step

    def fail_at_five(trainer: Trainer, batch: dict[str, Any]) -> Any:
        if trainer.position.step == 5:
            raise KeyError("power")
        return micro_step(trainer, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_micro_step", fail_at_five)
        with pytest.raises(KeyError, match="power"):
            train(recipe, data, tmp_path)
    assert checkpoint_of(tmp_path)["position"]["step"] == 4
    assert len(losses(tmp_path)) == 5
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')  # cut short while it was written
    assert differences(train(recipe, data, tmp_path, resume=True), checkpoint_of(straight["moco_v2"])) == []
    assert losses(tmp_path) == losses(straight["moco_v2"])


@pytest.mark.parametrize("kind", slow_but([signal.SIGINT, signal.SIGTERM], [signal.SIGINT]))
def test_signal_finishes_the_step_saves_and_says_how_to_go_on(
    kind: signal.Signals, data: Path, straight: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = dropping_recipe("disco")
    micro_step, handler = Trainer._micro_step, signal.getsignal(kind)

    def signal_in_second_step(trainer: Trainer, batch: dict[str, Any]) -> Any:
        if trainer.position.step == 1:
            os.kill(os.getpid(), kind)
        return micro_step(trainer, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_micro_step", signal_in_second_step)
        with pytest.raises(Interrupted, match=r"stopped at step 2 of 6; nothing is lost.*--resume"):
            train(recipe, data, tmp_path, workers=1)
    assert signal.getsignal(kind) == handler
    assert checkpoint_of(tmp_path)["position"]["step"] == 2
    assert differences(train(recipe, data, tmp_path, resume=True), checkpoint_of(straight["disco"])) == []
    assert losses(tmp_path) == losses(straight["disco"])


def test_ctrl_c_of_the_command_exits_130_and_resume_reaches_the_same_bits(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGINT to the whole process group, workers included, as a terminal sends it."""
    recipe = toy_recipe_file(tmp_path, "moco_v2", optim__epochs=400)
    arguments = ["train", recipe, "--data", data, "--device", "cpu", "--out", tmp_path / "run"]
    process = Forked(command(*arguments, "--workers", 1), cwd=tmp_path, start_new_session=True)
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.is_file() and metrics.stat().st_size) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    last = stderr.strip().splitlines()[-1]
    stopped = checkpoint_of(tmp_path / "run")["position"]["step"]
    assert last == (
        f"Interrupted: stopped at step {stopped} of 1200; nothing is lost. To go on, repeat the command with --resume"
    )
    beyond = stopped + 4
    assert main([*map(str, arguments), "--resume", "--workers", "0", "--steps", str(beyond)]) == 0
    assert main([*map(str, arguments[:-1]), str(tmp_path / "straight"), "--workers", "0", "--steps", str(beyond)]) == 0
    capsys.readouterr()
    assert differences(checkpoint_of(tmp_path / "run"), checkpoint_of(tmp_path / "straight")) == []
