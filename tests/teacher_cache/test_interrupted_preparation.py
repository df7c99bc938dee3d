"""A run that is stopped while bags and cached features are computed: one line, nothing half-written, and a way on."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from forked import Forked
from method_runs import method_recipe, method_values
from tiny_runs import checkpoint_of, differences, toy_parquet, train

from disco_zoo.core.yaml_io import dump_yaml
from disco_zoo.errors import Interrupted
from disco_zoo.methods import bingo_bags as bags
from disco_zoo.teacher_cache import feature_bank
from disco_zoo.teacher_cache.cache_dir import CacheFolder
from disco_zoo.teacher_cache.feature_bank import FOLDER

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_parquet(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def large_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough images for several batches of the teacher's."""
    return toy_parquet(tmp_path_factory.mktemp("large"), num_train=1000)


@pytest.fixture(scope="module")
def straight(large_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, undisturbed."""
    folder = tmp_path_factory.mktemp("straight")
    train(method_recipe("bingo"), large_data, folder, steps=1)
    return folder


# The command line with a teacher that takes its time, so that the signal comes in the middle on any machine.
SLOW_TEACHER = """
import signal, sys, time
from disco_zoo.cli import main
from disco_zoo.teacher_cache import feature_bank

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
pooled = feature_bank.pooled
feature_bank.pooled = lambda *arguments: (time.sleep(0.4), pooled(*arguments))[1]
sys.exit(main(sys.argv[1:]))
"""


def stop_while_extracting(arguments: list[object], folder: Path, kind: signal.Signals) -> tuple[int | None, str, str]:
    process = Forked([sys.executable, "-c", SLOW_TEACHER, *map(str, arguments)], start_new_session=True)
    deadline = time.monotonic() + 60
    while not [*(folder / FOLDER).glob("*/done-0.jsonl")] and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    time.sleep(0.2)  # the workers are at it
    os.killpg(process.pid, kind)  # as a terminal does: to the workers, too
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.parametrize(
    "kind", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGKILL], ids=["ctrl_c", "killed"]
)
def test_stopped_extraction_leaves_nothing_that_is_used_and_a_resume_starts_it_again(
    kind: signal.Signals, large_data: Path, straight: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "toy_bingo.yaml"
    recipe.write_text(dump_yaml(method_values("bingo")), encoding="utf-8")
    folder = tmp_path / "run"
    typed = ["train", recipe, "--data", large_data, "--out", folder, "--device", "cpu", "--workers", 1, "--steps", 1]
    code, out, err = stop_while_extracting(typed, folder, kind)
    (bank,) = (folder / FOLDER).iterdir()
    before = CacheFolder(bank).missing(1)
    assert before.any()
    assert not before.all()
    assert CacheFolder(bank).damaged() == []
    if kind == signal.SIGINT:
        assert (code, out) == (130, "")
        assert err.splitlines()[-1].startswith("Interrupted: stopped after ")
        assert err.splitlines()[-1].endswith("they are kept. To go on, repeat the command")
    train(method_recipe("bingo"), large_data, folder, steps=1, resume=True)
    assert differences(checkpoint_of(folder), checkpoint_of(straight)) == []
    arrays = [
        path.relative_to(folder) for path in (folder / FOLDER).rglob("*") if path.suffix in {".npy", ".f16", ".u32"}
    ]
    assert len(arrays) == 3
    assert all((folder / name).read_bytes() == (straight / name).read_bytes() for name in arrays)


def test_ctrl_c_in_the_search_keeps_the_features_that_are_done(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(bags, "nearest_neighbors", interrupted)
        with pytest.raises(Interrupted, match=r"while preparing.*--resume$"):
            train(method_recipe("bingo"), data, tmp_path, steps=1)
    assert [path.name.split("_")[0] for path in (tmp_path / FOLDER).iterdir()] == ["backbone"]
    monkeypatch.setattr(feature_bank, "pooled", interrupted)  # nobody computes them again
    state = train(method_recipe("bingo"), data, tmp_path, steps=1, resume=True)
    assert state["position"]["step"] == 1


def test_ctrl_c_before_a_resumed_run_goes_on_leaves_its_checkpoint(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = train(method_recipe("bingo"), data, tmp_path, steps=2)

    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("disco_zoo.methods.bingo.teacher_bags", interrupted)
        with pytest.raises(Interrupted):
            train(method_recipe("bingo"), data, tmp_path, resume=True)
    assert differences(before, checkpoint_of(tmp_path)) == []
