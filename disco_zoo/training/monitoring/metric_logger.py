"""Metrics of a run: one JSON line a record, TensorBoard when its extra is installed, trackers that were asked for."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from disco_zoo.training.monitoring.trackers import Tracking


class MetricLogger:
    """Append records to `metrics.jsonl`. A resumed run first drops what came after its checkpoint.

    Args:
        folder: the run folder.
        resume_step: keep records up to this step; None starts afresh.
        writes: False for all processes but one.
        trackers: of Accelerate, see `Tracking`, with the run's name and settings.
    """

    def __init__(
        self,
        folder: Path,
        *,
        resume_step: int | None = None,
        writes: bool = True,
        trackers: Sequence[str] = (),
        run_name: str = "",
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.path, self._writes, self._tensorboard = folder / "metrics.jsonl", writes, None
        self._tracking: Tracking | None = None
        if not writes:
            return
        kept = [] if resume_step is None else [row for row in read_metrics(folder) if row["step"] <= resume_step]
        self.path.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        self._tracking = Tracking(trackers, run_name, settings or {}, folder)
        if "tensorboard" not in trackers:
            self._tensorboard = _tensorboard_writer(folder)

    def log(self, record: dict[str, Any]) -> None:
        """Write one record; it must have a `step`."""
        if not self._writes:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if self._tracking is not None:
            self._tracking.log(record)
        if self._tensorboard is not None:
            for key, value in record.items():
                if key != "step" and isinstance(value, (int, float)):
                    self._tensorboard.add_scalar(key, value, record["step"])

    def close(self) -> None:
        if self._tracking is not None:
            self._tracking.finish()
        if self._tensorboard is not None:
            self._tensorboard.close()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """All records of a run folder. A line cut short by a crash is the last one and is left out."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def _tensorboard_writer(folder: Path) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"))
