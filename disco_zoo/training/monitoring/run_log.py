"""Writes records into `metrics.jsonl` and shows the newest figures beside the progress bar."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from disco_zoo.core.console import StepProgress
from disco_zoo.training.monitoring.metric_logger import MetricLogger
from disco_zoo.training.position import Position


class RunLog:
    """Writes records; beside the progress bar stand the figures of the last step and of the last evaluations.

    Args:
        position: of the training; it moves on while this object lives.
    """

    def __init__(self, metrics: MetricLogger, progress: StepProgress, position: Position) -> None:
        self.metrics, self.progress, self.position = metrics, progress, position
        self._step = ""
        self._evaluations: dict[str, str] = {}

    def step(self, record: Mapping[str, Any], text: str) -> None:
        """Record the step that was just taken."""
        self._step = text
        self._write(record)

    def evaluation(self, kind: str, record: Mapping[str, Any], text: str) -> None:
        """Record an evaluation; the text of the last one of each kind is shown."""
        self._evaluations[kind] = text
        self._write(record)

    def _write(self, record: Mapping[str, Any]) -> None:
        self.metrics.log({"step": self.position.step, **record})
        self.progress.advance(
            self.position.step, ", ".join(text for text in (self._step, *self._evaluations.values()) if text)
        )
