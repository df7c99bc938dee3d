"""A loss that is not finite stops the run before a checkpoint, and no step waits for an accelerator to say so."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import checkpoint_of, toy_parquet, toy_recipe, train

from disco_zoo.errors import TrainingDiverged
from disco_zoo.methods.moco_v2 import MoCoV2
from disco_zoo.training import stopping
from disco_zoo.training.metrics import read_metrics
from disco_zoo.training.stopping import BadLoss, LossWatch, StopVotes, reading_is_free
from disco_zoo.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")

# What makes the host wait for a device's queue.
WAITING = ("item", "tolist", "__bool__", "__float__", "__int__", "__index__", "cpu", "numpy", "nonzero")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_parquet(tmp_path_factory.mktemp("data"))


@pytest.fixture
def as_on_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "reading_is_free", lambda device: False)


def bad_at(monkeypatch: pytest.MonkeyPatch, step: int, value: float = float("nan")) -> None:
    """Make the loss of one step not finite; the weights stay sound, so that only this step shows it."""
    forward, calls = MoCoV2.forward, iter(range(1000))

    def spoilt(method: MoCoV2, batch: Any) -> dict[str, torch.Tensor]:
        losses = forward(method, batch)
        return losses if next(calls) != step else {**losses, "loss": losses["loss"] * 0 + value}

    monkeypatch.setattr(MoCoV2, "forward", spoilt)


def test_losses_are_read_together_and_the_first_bad_one_is_named(as_on_an_accelerator: None) -> None:
    watch = LossWatch(torch.device("cpu"))
    for step, value in enumerate([1.0, 2.0, float("inf"), float("nan"), 3.0]):
        assert watch.note(torch.tensor(value), step, 0.1 * step) is None
    assert watch.first_bad() == BadLoss(float("inf"), 2, 0.2)
    assert watch.first_bad() is None


def test_on_a_cpu_each_loss_is_read_at_once() -> None:
    assert reading_is_free(torch.device("cpu"))
    assert not reading_is_free(torch.device("cuda"))
    watch = LossWatch(torch.device("cpu"))
    assert watch.note(torch.tensor(1.0), 0, 0.1) is None
    assert watch.note(torch.tensor(float("-inf")), 7, 0.2) == BadLoss(float("-inf"), 7, 0.2)


@pytest.mark.parametrize(("log_every", "checkpoint_every"), [(100, 2), (2, 100), (100, 100)])
def test_a_loss_that_was_bad_for_one_step_never_reaches_a_checkpoint(
    log_every: int,
    checkpoint_every: int,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    as_on_an_accelerator: None,
) -> None:
    recipe = toy_recipe(
        "moco_v2", log__log_every_steps=log_every, log__checkpoint_every_steps=checkpoint_every, optim__epochs=4
    )
    bad_at(monkeypatch, 4)
    with pytest.raises(TrainingDiverged, match=r"^the loss is nan at step 4 with lr 0\.0\d+\. The last checkpoint"):
        train(recipe, data, tmp_path)
    state = checkpoint_of(tmp_path)
    assert state["position"]["step"] == (4 if checkpoint_every == 2 else 3)
    assert all(torch.isfinite(value).all() for value in state["method"].values())
    assert all(row["step"] <= 4 for row in read_metrics(tmp_path))


def test_no_step_asks_for_a_number_where_none_is_due(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_on_an_accelerator: None
) -> None:
    """Counts what would make the host wait; records are due at 4 and 6, a checkpoint at 3, an epoch's end."""
    counts: Counter[int] = Counter()
    at: list[int | None] = [None]

    def counting(former: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            if at[0] is not None:
                counts[at[0]] += 1
            return former(*args, **options)

        return call

    for name in WAITING:
        monkeypatch.setattr(torch.Tensor, name, counting(getattr(torch.Tensor, name)))
    micro_step, ask = Trainer._micro_step, StopVotes.__call__

    def begin(trainer: Trainer, batch: Any) -> Any:
        at[0] = trainer.position.step + 1
        return micro_step(trainer, batch)

    def end(stops: StopVotes, step: int) -> bool:
        answer = ask(stops, step)
        at[0] = None
        return answer

    monkeypatch.setattr(Trainer, "_micro_step", begin)
    monkeypatch.setattr(StopVotes, "__call__", end)
    train(toy_recipe(log__log_every_steps=4, log__checkpoint_every_steps=100), data, tmp_path)
    # Step 1 folds the teacher, which compares numbers once.
    assert set(counts) - {1} == {3, 4, 6}
    assert [row["step"] for row in read_metrics(tmp_path) if "loss" in row] == [4, 6]
