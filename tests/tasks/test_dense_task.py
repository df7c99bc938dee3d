"""What the curve of a task's run holds."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from disco_zoo.core.console import StepProgress
from disco_zoo.tasks.dense_report import curve_rows
from disco_zoo.tasks.dense_run import task_settings
from disco_zoo.tasks.dense_task import DenseTask, TaskPlan, log_once
from disco_zoo.training.metrics import MetricLogger, read_metrics
from disco_zoo.training.run_folder import RunFolder
from disco_zoo.training.task import RunLog


def test_a_figure_of_the_end_alone_is_no_curve() -> None:
    rows = [{"step": 10, "loss": 2.0}, {"step": 20, "loss": 1.0}, {"step": 20, "miou": 50.0}]
    assert curve_rows(rows) == [{"step": 10, "loss": 2.0}, {"step": 20, "loss": 1.0}, {"step": 20}]
    two = [{"step": 10, "ap": 1.0}, *rows[:2], {"step": 20, "ap": 2.0}]
    assert curve_rows(two) == two
    short = [{"step": 3, "loss": 1.0}, {"step": 3, "miou": 5.0}]
    assert curve_rows(short) == short
    assert curve_rows([]) == []


def test_the_figures_of_the_end_are_logged_once(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", task_settings({}), resume=False)
    logger = MetricLogger(folder.path)
    logger.log({"step": 2, "loss": 1.0})
    logger.close()
    for _ in range(2):
        log_once(folder, 2, {"miou": 5.0})
    assert read_metrics(folder.path) == [{"step": 2, "loss": 1.0}, {"step": 2, "miou": 5.0}]
    folder.close()


def test_the_speed_of_a_record_is_that_since_the_record_before(tmp_path: Path) -> None:
    """A run that goes on from step 10, which took 100 s: now a step of 4 images takes 1 s, then 0.5 s."""
    model = nn.Linear(1, 1)
    plan = TaskPlan("toy", "toy", 8, "0", steps=40, batch_size=4, lr=0.1, lr_factor=float, checkpoint_every=10, seed=0)
    task = DenseTask(
        model,
        model,
        torch.optim.SGD(model.parameters()),
        plan,
        device="cpu",
        loader=lambda first, last: [],
        named_losses=lambda batch: {},
    )
    position = task.position
    position.step, position.seconds = 10, 100.0
    task.start(RunLog(MetricLogger(tmp_path), StepProgress("toy", 40), position), 40)
    for position.step, position.seconds in ((20, 110.0), (30, 115.0)):
        task.log_step({"loss": torch.tensor(1.0)}, 0.1)
    assert [row["images_per_s"] for row in read_metrics(tmp_path)] == [4.0, 8.0]
