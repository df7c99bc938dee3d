"""Waiting for data: what counts as waiting, where it is written down, and what people are told."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from tiny import TinySource
from tiny_runs import BATCH_SIZE, toy_parquet, toy_recipe

from disco_zoo.core import launcher
from disco_zoo.core.console import StepProgress
from disco_zoo.training.metrics import MetricLogger, read_metrics
from disco_zoo.training.monitoring.data_wait import DataWait, remedy
from disco_zoo.training.monitoring.pretraining_log import PretrainingLog
from disco_zoo.training.run import Run, RunOptions
from disco_zoo.training.run_data import open_data
from disco_zoo.training.task import Position, RunLog
from disco_zoo.training.train import finish_training

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_parquet(tmp_path_factory.mktemp("data"))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Time that passes only when the test says so."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def passes(seconds: float) -> None:
        now[0] += seconds

    return passes


def batches(clock: Callable[[float], None], *seconds: float) -> Iterator[dict[str, Any]]:
    for number, each in enumerate(seconds):
        clock(each)
        yield {"number": number}


def test_only_the_time_until_a_batch_comes_counts(clock: Callable[[float], None]) -> None:
    wait = DataWait(CPU, seconds=1.0)
    seen = []
    for batch in wait.over(batches(clock, 0.5, 0.0, 2.0)):
        seen.append(batch["number"])
        clock(10.0)  # computing
        wait.step_queued()
    assert seen == [0, 1, 2]
    assert wait.seconds == pytest.approx(3.5)


def test_on_an_accelerator_only_its_own_idle_time_counts(
    clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Device:
        """Steps of 5 s each, one after another; its clock is the host's."""

        busy_until = 0.0

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.reached = max(time.monotonic(), Device.busy_until)

        def query(self) -> bool:
            return time.monotonic() >= self.reached

        def elapsed_time(self, later: Event) -> float:
            return 1000.0 * (later.reached - self.reached)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    wait = DataWait(torch.device("cuda"))
    for _ in wait.over(batches(clock, 1.0, 2.0, 6.5, 20.0)):
        clock(0.25)  # the host queues the step
        Device.busy_until = max(time.monotonic(), Device.busy_until) + 5.0
        wait.step_queued()
    # All before the first step; the next two batches come at 3.25 and 10 s, before the queue runs dry at 6.25 and
    # 11.25; the last one comes at 30.25 s, the queue is dry since 16.25. The host has waited 28.5 s.
    assert wait.seconds == pytest.approx(1.0 + (30.25 - 16.25))


def a_log(folder: Path, position: Position) -> PretrainingLog:
    log = RunLog(MetricLogger(folder), StepProgress("toy", 100), position)
    return PretrainingLog(log, 8, lambda: "Type: --workers 3")


def test_the_share_is_since_the_last_record_and_above_a_tenth_people_are_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("core.console", "training.monitoring.pretraining_log"):
        monkeypatch.setattr(f"disco_zoo.{module}.console", Console(stderr=True, highlight=False))
    monkeypatch.setattr("disco_zoo.core.console.LINE_EVERY_SECONDS", 0.0)
    position = Position()
    log = a_log(tmp_path, position)
    for step, (seconds, waited) in enumerate([(2.0, 1.9), (12.0, 2.4), (22.0, 5.4), (32.0, 9.9)], start=1):
        position.step, position.seconds, position.data_wait_seconds = step, seconds, waited
        log.step(0, {"loss": torch.tensor(1.0)}, 0.1)
    rows = read_metrics(tmp_path)
    assert [row["data_wait_share"] for row in rows] == [0.95, 0.05, 0.3, 0.45]
    assert [row["images_per_s"] for row in rows] == pytest.approx([8 / 2.0, 8 / 10.0, 8 / 10.0, 8 / 10.0])
    shown = capsys.readouterr().err.splitlines()
    lines = [line for line in shown if line.startswith("toy: ")]
    assert [line.rpartition(", ")[2] for line in lines] == [
        "95% waiting for data",
        "loss 1.000",
        "30% waiting for data",
        "45% waiting for data",
    ]
    hints = [line for line in shown if "Type:" in line]
    assert hints == ["30% of the time is spent waiting for data. Type: --workers 3"]


def test_a_resumed_run_counts_its_first_share_and_speed_from_where_it_goes_on(tmp_path: Path) -> None:
    position = Position(step=10, seconds=100.0, data_wait_seconds=90.0)
    log = a_log(tmp_path, position)
    position.step, position.seconds, position.data_wait_seconds = 20, 110.0, 91.0
    log.step(0, {"loss": torch.tensor(1.0)}, 0.1)
    row = read_metrics(tmp_path)[0]
    assert (row["data_wait_share"], row["images_per_s"]) == pytest.approx((0.1, 10 * 8 / 10.0))


def test_a_few_steps_cannot_wait_longer_than_they_last() -> None:
    assert Position(step=1, seconds=2.0, data_wait_seconds=3.0).data_wait_share == 1.0


@pytest.mark.parametrize(
    ("device", "workers", "expected"),
    [
        ("cuda", 2, "Type: --workers 4, or if the images are large, resize them once with: disco-zoo data pack"),
        ("cuda", 0, "Type: --workers 1, or if the images are large, resize them once with: disco-zoo data pack"),
        ("cuda", 6, "Type: --workers 7, or if the images are large, resize them once with: disco-zoo data pack"),
        ("cuda", 7, "All 8 cores are taken; if the images are large, resize them once with: disco-zoo data pack"),
        ("cpu", 2, "Type: --workers 3, or if the images are large, resize them once with: disco-zoo data pack"),
        ("cpu", 3, "All 8 cores are taken; if the images are large, resize them once with: disco-zoo data pack"),
    ],
)
def test_more_workers_are_proposed_only_where_cores_are_left(
    device: str, workers: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    assert remedy(workers, torch.device(device)) == expected


def test_run_json_and_report_hold_the_whole_runs_share(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source that takes 50 ms an image; all else in this run takes less."""
    encoded = TinySource.encoded

    def slow(source: Any, index: int) -> Any:
        time.sleep(0.05)
        return encoded(source, index)

    monkeypatch.setattr(TinySource, "encoded", slow)
    recipe = toy_recipe("moco_v2", optim__epochs=1)
    sources = open_data(recipe, str(data))
    object.__setattr__(sources, "train", TinySource(26))
    run = Run(recipe, sources, tmp_path / "run", RunOptions(), label="toy")
    try:
        result = run.train()
        finish_training(run)
    finally:
        run.close()
    assert result.data_wait_share * result.seconds > 0.9 * 3 * BATCH_SIZE * 0.05
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["data_wait_share"] == pytest.approx(result.data_wait_share, abs=1e-4)
    assert 0.2 < facts["data_wait_share"] <= 1
    assert f"{facts['data_wait_share']:.0%} of the time waiting for data" in (tmp_path / "run" / "report.md").read_text(
        encoding="utf-8"
    )
