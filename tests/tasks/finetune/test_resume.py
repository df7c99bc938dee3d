"""A fine-tuning that stops goes on to the bit, and a folder is nobody else's."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from finetune_makers import checkpoint_of, run_finetune, task_of, tensors_of, toy_data, toy_settings, train
from slow_params import slow_but
from tiny_runs import differences

from disco_zoo.data.subsets import SubsetSource
from disco_zoo.errors import BadRunFolder, Interrupted
from disco_zoo.tasks.finetune.run import LabeledData
from disco_zoo.training.metrics import read_metrics
from disco_zoo.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> LabeledData:
    return toy_data(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def finished(data: LabeledData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    train(toy_settings(), data, folder)
    return folder


RESUMED: dict[str, dict[str, Any]] = {
    "dropout_mix_strong": {"model": "dropping_student", "augment": "strong", "mixup": 0.3, "cutmix": 1.0},
    "held_out_bf16": {"model": "test_efficientnet", "val_fraction": 0.3, "precision": "bf16"},
}


@pytest.fixture(scope="module")
def straight(data: LabeledData, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trainer]:
    folder = tmp_path_factory.mktemp("straight")
    return {name: train(toy_settings(**changes), data, folder / name) for name, changes in RESUMED.items()}


# An epoch has 4 steps, with held-out images 3.
@pytest.mark.parametrize("name", RESUMED)
@pytest.mark.parametrize("stop", slow_but([2, 3, 4, 5], [2, 4]))
def test_resumed_run_equals_straight_run_bit_by_bit(
    name: str, stop: int, data: LabeledData, straight: dict[str, Trainer], tmp_path: Path
) -> None:
    settings = toy_settings(**RESUMED[name])
    half = train(settings, data, tmp_path, steps=stop, workers=1 if stop == 2 else 0)
    assert (half.position.step, half.task.finished) == (stop, False)
    torch.manual_seed(99)  # whatever another process would have drawn
    resumed = train(settings, data, tmp_path, resume=True)
    assert resumed.task.finished
    assert differences(checkpoint_of(tmp_path), checkpoint_of(straight[name].folder.path)) == []
    assert differences(tensors_of(task_of(resumed).classifier), tensors_of(task_of(straight[name]).classifier)) == []
    assert read_metrics(tmp_path) == read_metrics(straight[name].folder.path)


def test_dropout_matters_in_these_runs(data: LabeledData, straight: dict[str, Trainer], tmp_path: Path) -> None:
    """If the random state were not restored, the test above would see it."""
    settings = toy_settings(**RESUMED["dropout_mix_strong"])
    train(settings, data, tmp_path, steps=3)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    state["random"][0]["cpu"] = torch.Generator().manual_seed(5).get_state()
    torch.save(state, tmp_path / "checkpoint.pt")
    train(settings, data, tmp_path, resume=True)
    assert differences(checkpoint_of(tmp_path), checkpoint_of(straight["dropout_mix_strong"].folder.path)) != []


def test_what_ran_before_in_this_process_does_not_change_a_run(
    data: LabeledData, straight: dict[str, Trainer], tmp_path: Path
) -> None:
    torch.manual_seed(1234)
    train(toy_settings(**RESUMED["dropout_mix_strong"]), data, tmp_path)
    assert differences(checkpoint_of(tmp_path), checkpoint_of(straight["dropout_mix_strong"].folder.path)) == []


def test_power_failure_loses_nothing_but_the_steps_since_the_checkpoint(
    data: LabeledData, straight: dict[str, Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = toy_settings(**RESUMED["dropout_mix_strong"], checkpoint_every_steps=2)
    step = Trainer._micro_step

    def fail_at_five(trainer: Trainer, batch: Any) -> Any:
        if trainer.position.step == 5:
            raise KeyError("power")
        return step(trainer, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_micro_step", fail_at_five)
        with pytest.raises(KeyError, match="power"):
            train(settings, data, tmp_path)
    assert checkpoint_of(tmp_path)["position"]["step"] == 4
    train(settings, data, tmp_path, resume=True)
    expected = straight["dropout_mix_strong"].folder.path
    assert differences(checkpoint_of(tmp_path), checkpoint_of(expected)) == []
    assert read_metrics(tmp_path) == read_metrics(expected)


def test_interrupt_finishes_the_step_and_saves(
    data: LabeledData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer._micro_step

    def interrupted(trainer: Trainer, batch: Any) -> Any:
        if trainer.position.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(trainer, batch)

    monkeypatch.setattr(Trainer, "_micro_step", interrupted)
    with pytest.raises(Interrupted, match="stopped at step 3 of 8"):
        train(toy_settings(), data, tmp_path / "run")
    assert checkpoint_of(tmp_path / "run")["position"]["step"] == 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"lr": 0.5}, "lr: 0.001 there, 0.5 here"), ({"seed": 3}, "seed: 0 there, 3 here")],
)
def test_resume_with_other_settings_is_refused(
    changes: dict[str, Any], words: str, data: LabeledData, finished: Path
) -> None:
    with pytest.raises(BadRunFolder, match=words):
        run_finetune(toy_settings(**changes), data, finished, resume=True)


def test_folder_of_a_run_is_not_overwritten_nor_resumed_on_other_images(
    data: LabeledData, finished: Path, tmp_path: Path
) -> None:
    with pytest.raises(BadRunFolder, match="already holds a run"):
        run_finetune(toy_settings(), data, finished)
    with pytest.raises(BadRunFolder, match="holds no run to resume"):
        run_finetune(toy_settings(), data, tmp_path / "none", resume=True)
    other = toy_data(tmp_path / "other", num_train=25)
    with pytest.raises(BadRunFolder, match="other images"):
        run_finetune(toy_settings(), other, finished, resume=True)


def test_finished_run_without_its_checkpoint_stays_as_it_is(data: LabeledData, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run_finetune(toy_settings(), data, run)
    (run / "checkpoint.pt").unlink()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert run_finetune(toy_settings(), data, run, resume=True) == json.loads((run / "run.json").read_text())
    with pytest.raises(BadRunFolder, match="already holds a run"):
        run_finetune(toy_settings(), data, run)
    with pytest.raises(BadRunFolder, match="8 steps, not 1, and has no checkpoint to go on from"):
        run_finetune(toy_settings(), data, run, resume=True, steps=1)
    with pytest.raises(BadRunFolder, match="on other images"):
        run_finetune(toy_settings(), toy_data(tmp_path / "other", num_train=25), run, resume=True)
    assert data.test is not None
    with pytest.raises(BadRunFolder, match="on other images"):
        run_finetune(toy_settings(), replace(data, test=SubsetSource(data.test, range(6))), run, resume=True)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_checkpoint_of_version_0_1_goes_on_to_the_bit(
    data: LabeledData, straight: dict[str, Trainer], tmp_path: Path
) -> None:
    """It named position and optimizer in another way, and held one random state."""
    settings = toy_settings(**RESUMED["dropout_mix_strong"])
    train(settings, data, tmp_path, steps=3)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    state["progress"], state["optimiser"] = state.pop("position"), state.pop("optimizer")
    state["progress"].pop("data_wait_seconds")
    state["random"] = state["random"][0]
    torch.save(state, tmp_path / "checkpoint.pt")
    torch.manual_seed(99)
    train(settings, data, tmp_path, resume=True)
    assert differences(checkpoint_of(tmp_path), checkpoint_of(straight["dropout_mix_strong"].folder.path)) == []
