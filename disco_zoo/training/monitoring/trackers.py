"""Experiment trackers by Accelerate's names (TensorBoard, W&B, MLflow, trackio, ...), fed with the records of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
        console.print(
            f"--tracker {name} stops here: {first_line(error)}. metrics.jsonl goes on", soft_wrap=True, markup=False
        )


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
