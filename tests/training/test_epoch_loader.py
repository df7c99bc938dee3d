"""The batches of an epoch: the next epoch's begin early, and those for a GPU lie in pinned memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import checkpoint_of, differences, toy_parquet, toy_recipe, train

from disco_zoo.training.build import build_parts
from disco_zoo.training.epoch_loader import EpochBatches, epoch_loader
from disco_zoo.training.run_data import open_data
from disco_zoo.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_parquet(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_only_batches_for_a_gpu_are_pinned(device: str, data: Path) -> None:
    recipe = toy_recipe("moco_v2")
    source = open_data(recipe, str(data)).train
    loader = epoch_loader(
        recipe,
        source,
        build_parts(recipe, source).method,
        epoch=0,
        start_step=0,
        workers=0,
        device=torch.device(device),
        rank=0,
        num_processes=1,
    )
    assert loader.pin_memory == (device == "cuda")


def test_workers_of_the_next_epoch_start_before_this_one_ends(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what they draw is what they would have drawn."""
    begun: list[tuple[int, int]] = []
    begin = EpochBatches.begin
    trainers: list[Trainer] = []

    def note(batches: EpochBatches, epoch: int) -> None:
        begun.append((trainers[0].position.step, epoch))
        begin(batches, epoch)

    def remember(trainer: Trainer, *rest: Any) -> Any:
        trainers.append(trainer)
        return run(trainer, *rest)

    run = Trainer._run
    monkeypatch.setattr(Trainer, "_run", remember)
    monkeypatch.setattr(EpochBatches, "begin", note)
    recipe = toy_recipe("moco_v2", optim__epochs=3)
    state = train(recipe, data, tmp_path / "workers", workers=1)
    assert begun == [(2, 1), (5, 2)]
    assert differences(state, train(recipe, data, tmp_path / "none", workers=0)) == []
    assert checkpoint_of(tmp_path / "none")["position"]["step"] == 9


def test_an_epoch_that_was_begun_serves_only_its_own_start() -> None:
    loaded: list[tuple[int, int]] = []

    def load(epoch: int, start_step: int) -> list[dict[str, Any]]:
        loaded.append((epoch, start_step))
        return [{"epoch": epoch, "step": start_step}]

    batches = EpochBatches(load, begins_early=True)
    batches.begin(1)
    assert list(batches.rest_of(1, 0)) == [{"epoch": 1, "step": 0}]
    assert loaded == [(1, 0)]
    batches.begin(2)
    assert list(batches.rest_of(2, 5)) == [{"epoch": 2, "step": 5}]
    batches.begin(3)
    batches.close()
    assert list(batches.rest_of(3, 0)) == [{"epoch": 3, "step": 0}]
    assert loaded == [(1, 0), (2, 0), (2, 5), (3, 0), (3, 0)]
    EpochBatches(load, begins_early=False).begin(4)
    assert len(loaded) == 5
