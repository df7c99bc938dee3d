"""Features extracted by two processes are those of one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import MEAN, STD, TinyNet, TinySource

from disco_zoo.evaluate.features import Features, extract_features
from disco_zoo.evaluate.shared_features import shared_features

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
    torch.multiprocessing.spawn(one_of_two, args=(str(folder),), nprocs=2)
    return folder


def test_both_have_the_rows_of_one_process_with_the_first_ones_statistics(folder: Path) -> None:
    expected = extract_features(network(0), SOURCE, **OPTIONS)
    assert expected.labels is not None
    order = [*range(0, 37, 2), *range(1, 37, 2)]  # the first process's share, then the second's
    kept = [n for n in order if OPTIONS["indices"][n] not in SOURCE.broken]
    place = {n: row for row, n in enumerate(sorted(kept))}
    for rank in range(2):
        found = Features(**torch.load(folder / f"rank{rank}.pt", weights_only=True))
        assert found.labels is not None
        rows = [place[n] for n in kept]
        torch.testing.assert_close(found.features, expected.features[rows], atol=1e-6, rtol=0)
        assert found.labels.tolist() == expected.labels[rows].tolist()
        assert sorted(found.unreadable) == sorted(expected.unreadable)


def test_the_statistics_become_the_first_ones_and_the_mode_stays(folder: Path) -> None:
    for rank in range(2):
        state = torch.load(folder / f"state{rank}.pt", weights_only=True)
        assert torch.allclose(state["mean"], torch.full((8,), 0.1))
        assert state["training"] is True


def test_one_process_just_extracts() -> None:
    found = shared_features(network(0), SOURCE, **OPTIONS)
    assert torch.equal(found.features, extract_features(network(0), SOURCE, **OPTIONS).features)
