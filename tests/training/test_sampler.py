"""The order of an epoch, its shares over processes, and its rest after a resume."""

from __future__ import annotations

import itertools

from disco_zoo.training.epoch_loader import BatchShare, epoch_order


def batches(**options: int) -> list[list[int]]:
    return list(BatchShare(103, 12, **{"num_batches": 8, "seed": 1, "epoch": 2, **options}))


def test_an_epoch_visits_every_image_once() -> None:
    assert sorted(epoch_order(103, 1, 2).tolist()) == list(range(103))


def test_order_depends_on_seed_and_epoch_alone() -> None:
    orders = [tuple(epoch_order(103, *key).tolist()) for key in ((1, 2), (1, 3), (2, 2))]
    assert len(set(orders)) == 3
    assert orders[0] == tuple(epoch_order(103, 1, 2).tolist())


def test_batches_are_whole_and_in_the_order_of_the_epoch() -> None:
    assert [index for batch in batches() for index in batch] == epoch_order(103, 1, 2)[:96].tolist()
    assert {len(batch) for batch in batches()} == {12}


def test_processes_share_exactly_the_batches_of_one_process() -> None:
    for num_processes in (2, 3, 4):
        shares = [batches(rank=rank, num_processes=num_processes) for rank in range(num_processes)]
        assert [[*itertools.chain(*parts)] for parts in zip(*shares, strict=True)] == batches()


def test_a_resumed_epoch_delivers_the_rest() -> None:
    for start in (0, 3, 8):
        assert batches(start_batch=start) == batches()[start:]
        assert len(BatchShare(103, 12, num_batches=8, seed=1, epoch=2, start_batch=start)) == 8 - start
