"""`--tracker`: the real packages without a network where they are installed, and what users read where one fails."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import accelerate.tracking
import pytest
from forked import run
from tiny_runs import command, subprocess_environment, toy_parquet, toy_recipe_file

from disco_zoo.cli import main
from disco_zoo.errors import BadRecipe, DiscoZooError, MissingExtra
from disco_zoo.training.metrics import EXTRAS, MetricLogger, Tracking, read_metrics, require_trackers

pytestmark = pytest.mark.usefixtures("one_thread")
RECORD = {"step": 3, "loss": 0.5, "note": "no number"}


class Recorder(accelerate.tracking.GeneralTracker):
    """A tracker as Accelerate's are, which a test may make fail."""

    name = "recorder"
    requires_logging_directory = False
    made: list[Recorder] = []  # noqa: RUF012
    fails_at: str = ""

    def __init__(self, run_name: str) -> None:
        super().__init__()
        self.run_name, self.calls, self.settings = run_name, [], {}
        Recorder.made.append(self)

    @property
    def tracker(self) -> Any:
        return self.calls

    def _do(self, what: str, value: Any = None) -> None:
        if what == self.fails_at:
            raise OSError("no route to the server")
        self.calls.append((what, value))

    def start(self) -> None:
        self._do("start")

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.settings = values

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        self._do("log", (step, values))

    def finish(self) -> None:
        self._do("finish")


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Recorder]]:
    known = {**accelerate.tracking.LOGGER_TYPE_TO_CLASS, "recorder": Recorder}
    monkeypatch.setattr(accelerate.tracking, "LOGGER_TYPE_TO_CLASS", known)
    monkeypatch.setattr(accelerate.tracking, "get_available_trackers", lambda: ["recorder"])
    Recorder.made, Recorder.fails_at = [], ""
    yield Recorder
    Recorder.fails_at = ""


def test_numbers_steps_and_settings_are_handed_on(recorder: type[Recorder], tmp_path: Path) -> None:
    logger = MetricLogger(
        tmp_path, trackers=["recorder"], run_name="mine", settings={"optim": {"lr": 0.1}, "sizes": [64, 96]}
    )
    logger.log(RECORD)
    logger.close()
    (made,) = recorder.made
    assert made.calls == [("start", None), ("log", (3, {"loss": 0.5})), ("finish", None)]
    assert made.settings == {"optim.lr": 0.1, "sizes": "[64, 96]"}
    assert read_metrics(tmp_path) == [RECORD]


def test_a_tracker_that_fails_later_is_left_alone_and_said(
    recorder: type[Recorder], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder.fails_at = "log"
    logger = MetricLogger(tmp_path, trackers=["recorder"])
    for step in (1, 2):
        logger.log({"step": step, "loss": 0.5})
    logger.close()
    assert recorder.made[0].calls == [("start", None)]
    said = capsys.readouterr().err
    assert said.count("--tracker recorder stops here: no route to the server") == 1
    assert len(read_metrics(tmp_path)) == 2


def test_a_tracker_that_does_not_start_ends_the_command(recorder: type[Recorder], tmp_path: Path) -> None:
    recorder.fails_at = "start"
    with pytest.raises(DiscoZooError, match="--tracker recorder does not start: no route"):
        Tracking(["recorder"], "mine", {}, tmp_path)


def test_training_and_finetuning_send_what_they_log(recorder: type[Recorder], tmp_path: Path) -> None:
    data = toy_parquet(tmp_path / "data")
    recipe = toy_recipe_file(tmp_path, "moco_v2", optim__epochs=1)
    usual = ["--data", str(data), "--workers", "0", "--tracker", "recorder", "--device", "cpu"]
    assert main(["train", str(recipe), *usual, "--out", str(tmp_path / "run")]) == 0
    fast = ["--untrained", "--image-size", "32", "--batch-size", "8", "--epochs", "1"]
    assert main(["finetune", "test_efficientnet", *usual, *fast, "--out", str(tmp_path / "classifier")]) == 0
    for made, folder, key in zip(recorder.made, ("run", "classifier"), ("loss", "train_loss"), strict=True):
        logged = [value for what, value in made.calls if what == "log"]
        rows = read_metrics(tmp_path / folder)
        assert [step for step, _ in logged] == [row["step"] for row in rows]
        assert [values[key] for _, values in logged if key in values] == [row[key] for row in rows if key in row]
        assert made.calls[-1] == ("finish", None)


def test_an_unknown_name_and_a_missing_package_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadRecipe, match=r"no tracker 'wandbb'\. Did you mean 'wandb'\?"):
        require_trackers(["wandbb"])
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtra, match=r"disco-zoo\[wandb\]"):
        require_trackers(["wandb"])
    monkeypatch.setattr(accelerate.tracking, "get_available_trackers", list)
    with pytest.raises(BadRecipe, match="pip install swanlab"):
        require_trackers(["swanlab"])
    assert require_trackers([]) == ()


@pytest.mark.slow
@pytest.mark.parametrize("name", EXTRAS)
def test_the_real_package_records_a_training_without_a_network(name: str, tmp_path: Path) -> None:
    """In a process of its own: these packages leave threads and warnings behind."""
    pytest.importorskip(name, reason=f"the extra {name} is not installed", exc_type=ImportError)
    data, recipe = toy_parquet(tmp_path / "data"), toy_recipe_file(tmp_path, "moco_v2", optim__epochs=1)
    offline = {
        "WANDB_MODE": "offline",
        "MLFLOW_TRACKING_URI": (tmp_path / "mlruns").as_uri(),
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "TRACKIO_DIR": str(tmp_path / "trackio"),
        "HOME": str(tmp_path),
    }
    words = ["train", recipe, "--data", data, "--workers", 0, "--device", "cpu", "--out", tmp_path / "run"]
    done = run(command(*words, "--tracker", name), env={**subprocess_environment(), **offline}, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "stops here" not in done.stderr
    losses = [row["loss"] for row in read_metrics(tmp_path / "run") if "loss" in row]
    assert losses
    assert _recorded(name, tmp_path) == pytest.approx(losses, rel=1e-6)


def _recorded(name: str, folder: Path) -> list[float]:
    """The losses, as the package's own files hold them."""
    if name == "tensorboard":
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(folder / "run" / "tensorboard"))
        events.Reload()
        return [event.value for event in events.Scalars("loss")]
    if name == "mlflow":
        (metric,) = (folder / "mlruns").rglob("metrics/loss")
        return [float(line.split()[1]) for line in metric.read_text().splitlines()]
    if name == "trackio":
        (database,) = (folder / "trackio").rglob("*.db")
        with sqlite3.connect(database) as connection:
            rows = [json.loads(row) for (row,) in connection.execute("select metrics from metrics order by step")]
        return [row["loss"] for row in rows if "loss" in row]
    from wandb.proto import wandb_internal_pb2

    (path,) = (folder / "run" / "wandb").rglob("*.wandb")
    found = []
    for data in _wandb_records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        items = {"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
        found += [float(items["loss"])] if "loss" in items else []
    return found


def _wandb_records(raw: bytes) -> Iterator[bytes]:
    """LevelDB's log format behind a header of 7 bytes: blocks of 32 KiB, chunks of checksum, length, kind and data."""
    at, chunks = 7, b""
    while at + 7 <= len(raw):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = int.from_bytes(raw[at + 4 : at + 6], "little"), raw[at + 6]
        chunks = (b"" if kind in (1, 2) else chunks) + raw[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield chunks
