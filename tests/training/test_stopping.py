"""A run stops within seconds of a launcher's signal, and saves what it has when its images cannot be read."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from slow_params import slow_but
from tiny_runs import checkpoint_of, differences, toy_parquet, toy_recipe, train

from disco_zoo.config.recipe import Recipe
from disco_zoo.core.interrupts import InterruptFlag
from disco_zoo.data import passing_errors
from disco_zoo.data.formats.parquet import ParquetSource
from disco_zoo.data.survey import Survey
from disco_zoo.errors import CannotRead, Interrupted
from disco_zoo.training import stopping
from disco_zoo.training.stopping import StopVotes, stopped
from disco_zoo.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_parquet(tmp_path_factory.mktemp("data"))


def quiet_recipe() -> Recipe:
    return toy_recipe(log__log_every_steps=1000, log__checkpoint_every_steps=1000)


@pytest.fixture(scope="module")
def whole(one_thread: None, data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What an undisturbed run ends in."""
    return train(quiet_recipe(), data, tmp_path_factory.mktemp("whole"))


@pytest.fixture
def heard_hangup() -> Iterator[None]:
    """Also where the tests themselves run under nohup."""
    former = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, former)


@pytest.mark.usefixtures("heard_hangup")
@pytest.mark.parametrize(
    "kind", slow_but(["SIGTERM", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGHUP", "SIGINT"], ["SIGTERM", "SIGHUP"])
)
def test_a_signal_stops_after_its_step_whatever_the_interval_of_records(
    kind: str, data: Path, whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = quiet_recipe()
    former = Trainer._micro_step

    def step(trainer: Trainer, batch: Any) -> Any:
        if trainer.position.step == 1:
            os.kill(os.getpid(), getattr(signal, kind))
        return former(trainer, batch)

    monkeypatch.setattr(Trainer, "_micro_step", step)
    with pytest.raises(Interrupted, match="stopped at step 2 of 6; nothing is lost"):
        train(recipe, data, tmp_path / "parts")
    monkeypatch.undo()
    assert differences(train(recipe, data, tmp_path / "parts", resume=True), whole) == []


def test_a_closed_terminal_that_nohup_has_ignored_stops_nothing() -> None:
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with InterruptFlag() as flag:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not flag.raised
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, former)


def test_a_disk_that_fails_stops_the_run_with_a_checkpoint(
    data: Path, whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = quiet_recipe()
    monkeypatch.setattr(passing_errors, "WAITS_SECONDS", (0.0,))
    monkeypatch.setattr(ParquetSource, "survey", Survey())  # a look reads images, too
    former, reads = ParquetSource.encoded, iter(range(10**6))

    def encoded(source: ParquetSource, index: int) -> bytes:
        if next(reads) > 35:
            raise OSError(errno.EIO, "Input/output error")
        return former(source, index)

    monkeypatch.setattr(ParquetSource, "encoded", encoded)
    with pytest.raises(CannotRead, match=r"Input/output error.*checkpoint is kept. To go on, repeat") as found:
        train(recipe, data, tmp_path / "parts")
    assert "\n" not in str(found.value)
    monkeypatch.undo()
    state = checkpoint_of(tmp_path / "parts")
    assert 0 < state["position"]["step"] < 6
    assert state["position"]["unreadable"] == {}
    assert differences(train(recipe, data, tmp_path / "parts", resume=True), whole) == []


def test_a_killed_worker_stops_the_run_with_a_checkpoint(
    data: Path, whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = quiet_recipe()
    former, begun = ParquetSource.encoded, os.getpid()

    def encoded(source: ParquetSource, index: int) -> bytes:
        if os.getpid() != begun and os.path.exists(tmp_path / "parts" / "kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        return former(source, index)

    step = Trainer._micro_step

    def note(trainer: Trainer, batch: Any) -> Any:
        if trainer.position.step == 3:  # the first of the second epoch
            (tmp_path / "parts" / "kill").touch()
        return step(trainer, batch)

    monkeypatch.setattr(ParquetSource, "encoded", encoded)
    monkeypatch.setattr(Trainer, "_micro_step", note)
    monkeypatch.setattr("disco_zoo.training.pretraining.EpochBatches.begin", lambda self, epoch: None)
    try:
        with pytest.raises(CannotRead, match=r"killed by SIGKILL.*To go on, repeat the command with --resume"):
            train(recipe, data, tmp_path / "parts", workers=1)
    finally:
        monkeypatch.undo()
    (tmp_path / "parts" / "kill").unlink()
    assert differences(train(recipe, data, tmp_path / "parts", resume=True), whole) == []


@pytest.fixture
def two_processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[float]]]:
    """As if there were another process, which takes half a second a step; what was asked is noted."""
    asked: list[list[float]] = []

    def all_reduce(votes: torch.Tensor, op: Any) -> None:
        asked.append(votes.tolist())
        votes[1] = 0.5

    monkeypatch.setattr(stopping, "num_processes", lambda: 2)
    monkeypatch.setattr("torch.distributed.all_reduce", all_reduce)
    return iter([asked])  # type: ignore[return-value]


def test_several_processes_ask_each_other_every_few_seconds(two_processes: Iterator[list[list[float]]]) -> None:
    asked = next(two_processes)
    with InterruptFlag() as flag:
        stops = StopVotes(flag, torch.device("cpu"), step=10)
        answers = [stops(step) for step in range(11, 20)]
        assert not any(answers)
        assert len(asked) == 3  # after steps 11, 15 and 19: four of them take two seconds
        flag.raised = True
        assert [stops(step) for step in range(20, 24)] == [False, False, False, True]
    assert stops.agreed


RESUME = "To go on, repeat the command with --resume"


@pytest.mark.parametrize(
    ("step", "saved", "of_an_interrupt", "of_a_disk"),
    [
        (
            4,
            4,
            f"stopped at step 4 of 9; nothing is lost. {RESUME}",
            f" at step 4 of 9 and its checkpoint is kept. {RESUME}",
        ),
        (
            4,
            3,
            f"stopped at step 4 of 9; the checkpoint is of step 3. {RESUME}",
            f" at step 4 of 9; the checkpoint is of step 3. {RESUME}",
        ),
        (
            0,
            None,
            "stopped at step 0 of 9; nothing is lost. Nothing was trained yet: repeat the command",
            ". Nothing was trained yet: repeat the command",
        ),
        (
            2,
            None,
            "stopped at step 2 of 9, before its first checkpoint. Repeat the command",
            " at step 2 of 9, before its first checkpoint. Repeat the command",
        ),
    ],
)
def test_what_is_said_depends_on_what_is_kept(
    step: int, saved: int | None, of_an_interrupt: str, of_a_disk: str
) -> None:
    assert str(stopped(Interrupted("stopped"), step, 9, saved)) == of_an_interrupt
    assert str(stopped(CannotRead("no room"), step, 9, saved)) == f"no room. The run stopped{of_a_disk}"


def test_an_interrupt_inside_an_accumulated_step_names_the_step_of_the_checkpoint(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the two halves of the sixth step; the checkpoint is that of the first epoch's end."""
    former, halves = Trainer._micro_step, iter(range(10**6))

    def half(trainer: Trainer, batch: Any) -> Any:
        if next(halves) == 2 * 5 + 1:
            raise Interrupted("stopped")
        return former(trainer, batch)

    monkeypatch.setattr(Trainer, "_micro_step", half)
    recipe = toy_recipe("moco_v2", log__checkpoint_every_steps=1000, optim__accumulation_steps=2)
    with pytest.raises(Interrupted, match="stopped at step 5 of 6; the checkpoint is of step 3"):
        train(recipe, data, tmp_path)
    assert checkpoint_of(tmp_path)["position"]["step"] == 3
