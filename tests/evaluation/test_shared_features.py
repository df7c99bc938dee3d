"""Features extracted by two processes are those of one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from forked import run_pair
from tiny import MEAN, STD, TinyNet, TinySource

from disco_zoo.evaluation.features import Features, extract_features
from disco_zoo.evaluation.measure import shared_features

SOURCE = TinySource(41, unreadable=(5, 8))
OPTIONS = {"image_size": 16, "mean": MEAN, "std": STD, "indices": list(range(3, 40))}


def network(rank: int) -> TinyNet:
    """Equal weights; BatchNorm statistics of this process's own."""
    torch.manual_seed(0)
    made = TinyNet()
    made.bn.running_mean.fill_(0.1 + rank)
    return made


def one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    backbone = network(rank).train()
    torch.save(vars(shared_features(backbone, SOURCE, **OPTIONS)), f"{folder}/rank{rank}.pt")
    torch.save({"mean": backbone.bn.running_mean, "training": backbone.training}, f"{folder}/state{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pair")
    run_pair(one_of_two, folder)
    return folder


def test_the_first_has_the_rows_of_one_process_in_their_order_and_the_other_its_part(folder: Path) -> None:
    expected = extract_features(network(0), SOURCE, **OPTIONS)
    assert expected.labels is not None
    whole, part = (Features(**torch.load(folder / f"rank{rank}.pt", weights_only=True)) for rank in range(2))
    assert whole.labels is not None
    torch.testing.assert_close(whole.features, expected.features, atol=1e-6, rtol=0)
    assert whole.labels.tolist() == expected.labels.tolist()
    assert whole.unreadable == expected.unreadable
    torch.testing.assert_close(part.features, expected.features[-len(part) :], atol=1e-6, rtol=0)


def test_the_statistics_become_the_first_ones_and_the_mode_stays(folder: Path) -> None:
    for rank in range(2):
        state = torch.load(folder / f"state{rank}.pt", weights_only=True)
        assert torch.allclose(state["mean"], torch.full((8,), 0.1))
        assert state["training"] is True


def test_one_process_just_extracts() -> None:
    found = shared_features(network(0), SOURCE, **OPTIONS)
    assert torch.equal(found.features, extract_features(network(0), SOURCE, **OPTIONS).features)
