"""Twenty kills of each command at points of its writing; the resumed one ends in the bytes of an undisturbed one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from embed_makers import tiny_job
from finetune_makers import run_finetune, toy_data, toy_settings
from kill_storm import ends_by_kill
from tiny import TinySource
from tiny_runs import differences, toy_parquet, toy_recipe, train

from disco_zoo.data.open_source import open_source
from disco_zoo.data.pack.images import PackSettings
from disco_zoo.data.pack.job import PackJob

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600), pytest.mark.usefixtures("one_thread")]

KILLS = 20
Work = Callable[[Path, bool], Any]
"""Does the work in a folder, resuming or not."""


def pretrain(folder: Path, resume: bool) -> None:
    data = folder.parent.parent / "data" / "toy_train.parquet"
    recipe = toy_recipe("moco_v2", log__checkpoint_every_steps=1)
    train(recipe, data, folder / "run", resume=resume and (folder / "run" / "checkpoint.pt").is_file())


def embed(folder: Path, resume: bool) -> None:
    job = tiny_job(folder / "a.parquet", TinySource(22))
    job.run(resume=resume and job.out.with_name("a.parquet.parts").is_dir(), replace=True)


def pack(folder: Path, resume: bool) -> None:
    source = open_source(folder.parent.parent / "data" / "toy_train.parquet", "train")
    out = folder / "packed"
    PackJob([source], out, PackSettings(), shard_mb=1).run(resume=resume and (out / "pack.json").is_file())


def finetune(folder: Path, resume: bool) -> None:
    settings = toy_settings(checkpoint_every_steps=1)
    begun = (folder / "run" / "checkpoint.pt").is_file()
    run_finetune(settings, toy_data(folder.parent.parent / "data"), folder / "run", resume=resume and begun)


def contents(folder: Path) -> dict[str, Any]:
    """What decides: tensors of checkpoints, bytes of weights and tables. Times and dates are left out."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.name == "checkpoint.pt":
            state = torch.load(path, weights_only=True)
            for key in ("position", "progress"):
                state.get(key, {}).pop("seconds", None)
                state.get(key, {}).pop("data_wait_seconds", None)
            found[name] = state
        elif path.suffix in (".safetensors", ".parquet", ".npy"):
            found[name] = path.read_bytes()
    return found


@pytest.mark.parametrize("work", [pretrain, embed, pack, finetune])
def test_killed_twenty_times_and_the_same_in_the_end(work: Work, tmp_path: Path) -> None:
    toy_parquet(tmp_path / "data")
    whole = tmp_path / "whole" / "0"
    whole.mkdir(parents=True)
    assert not ends_by_kill(0, lambda: work(whole, False))
    wanted = contents(whole)
    assert wanted
    killed = 0
    for point in range(1, KILLS + 1):
        folder = tmp_path / "killed" / str(point)
        folder.mkdir(parents=True)
        killed += ends_by_kill(point, lambda at=folder: work(at, False))  # type: ignore[misc]
        assert not ends_by_kill(0, lambda at=folder: work(at, True))  # type: ignore[misc]
        assert differences(contents(folder), wanted) == [], f"killed at point {point}"
    print(f"{work.__name__}: {killed} of {KILLS} runs were killed")
    assert killed >= min(KILLS, 8)
