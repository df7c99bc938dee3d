"""Metrics of a run: one JSON line a record, TensorBoard when its extra is installed, trackers that were asked for.

Trackers have Accelerate's names (TensorBoard, W&B, MLflow, trackio, ...).
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from disco_zoo.core.console import console
from disco_zoo.errors import BadRecipe, DiscoZooError, did_you_mean, first_line, require

PROJECT = "disco-zoo"
EXTRAS = ("mlflow", "tensorboard", "trackio", "wandb")  # extras of this package, named like their trackers


def require_trackers(names: Iterable[str]) -> tuple[str, ...]:
    """Each name once, with its package at hand.

    Raises:
        BadRecipe: Accelerate knows no tracker of this name.
        MissingExtra: a package is missing.
    """
    chosen = tuple(dict.fromkeys(names))
    if not chosen:
        return ()
    tracking = require("accelerate.tracking", "train")
    known = sorted(map(str, tracking.LOGGER_TYPE_TO_CLASS))
    for name in chosen:
        if name not in known:
            raise BadRecipe(f"there is no tracker '{name}'.{did_you_mean(name, known)} (one of {', '.join(known)})")
        if name in EXTRAS:
            require(name, name)
        if name not in map(str, tracking.get_available_trackers()):
            raise BadRecipe(f"Accelerate finds no package for --tracker {name}. Type: pip install {name}")
    return chosen


class Tracking:
    """The trackers of one run. One that fails later is left alone, and said; the training goes on.

    Args:
        names: see `require_trackers`.
        run_name: of the run in the project `PROJECT`; environment variables of each tracker say the rest.
        settings: all that fixes the run, with sections.
        folder: of the run, for trackers that write files.

    Raises:
        DiscoZooError: a tracker does not start.
    """

    def __init__(self, names: Iterable[str], run_name: str, settings: Mapping[str, Any], folder: Path) -> None:
        self._trackers: dict[str, Any] = {}
        for name in require_trackers(names):
            try:
                self._trackers[name] = _started(name, run_name, dict(_flat(settings)), folder)
            except Exception as error:  # whatever its package raises
                self.finish()
                raise DiscoZooError(f"--tracker {name} does not start: {first_line(error)}") from error

    def log(self, record: Mapping[str, Any]) -> None:
        """Hand on the numbers of a record with a `step`."""
        values = {key: value for key, value in record.items() if key != "step" and isinstance(value, (int, float))}
        for name, tracker in [*self._trackers.items()]:
            try:
                tracker.log(values, step=record["step"])
            except Exception as error:  # a server that is gone, a full disk
                self._leave(name, error)

    def finish(self) -> None:
        for name, tracker in [*self._trackers.items()]:
            try:
                tracker.finish()
            except Exception as error:
                self._leave(name, error)
        self._trackers.clear()

    def _leave(self, name: str, error: Exception) -> None:
        del self._trackers[name]
        console.print(f"--tracker {name} stops here: {first_line(error)}. metrics.jsonl goes on", soft_wrap=True)


def _started(name: str, run_name: str, settings: dict[str, Any], folder: Path) -> Any:
    classes = require("accelerate.tracking", "train").LOGGER_TYPE_TO_CLASS
    # Each class names its run in its own way.
    by_name: dict[str, dict[str, Any]] = {
        "wandb": {"name": run_name, "dir": str(folder)},
        "trackio": {"name": run_name},
        "mlflow": {"run_name": run_name},
        "tensorboard": {},
    }
    kind, options = classes[name], by_name.get(name, {})
    if name == "tensorboard":
        tracker = kind("tensorboard", str(folder))
    elif kind.requires_logging_directory:
        tracker = kind(PROJECT, str(folder), **options)
    else:
        tracker = kind(PROJECT, **options)
    tracker.start()
    if name != "tensorboard":  # whose hyperparameters are a second run beside the first
        tracker.store_init_configuration(settings)
    return tracker


def _flat(settings: Mapping[str, Any], before: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value if isinstance(value, (bool, int, float, str)) else str(value)


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
