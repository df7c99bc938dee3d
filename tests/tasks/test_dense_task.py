"""What the curve of a task's run holds."""

from __future__ import annotations

from pathlib import Path

from disco_zoo.tasks.dense_report import curve_rows
from disco_zoo.tasks.dense_run import task_settings
from disco_zoo.tasks.dense_task import log_once
from disco_zoo.training.metrics import MetricLogger, read_metrics
from disco_zoo.training.run_folder import RunFolder


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
