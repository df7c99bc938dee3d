"""A chunk of images a thread: rows do not depend on the number of threads, and nothing is at work afterwards."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from disco_zoo.errors import DiscoZooError
from disco_zoo.models import forward
from disco_zoo.models.encoder import frozen
from disco_zoo.models.forward import BATCHES_BETWEEN_RETURNS, CHUNKS_AHEAD, Forward, chunk_of, difference


def images(number: int) -> Tensor:
    return torch.randn(number, 3, 64, 64, generator=torch.Generator().manual_seed(7))


def rows_by(computed: Forward, batch: Tensor) -> Tensor:
    with frozen(computed.backbone, "cpu"):
        return computed(batch)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (torch.full((2, 4), torch.nan), "differs"),
        (torch.ones(2, 3), "gives"),
        (torch.zeros(2, 4), "differs"),
        (2 * torch.ones(2, 4), "differs"),  # cosine 1, and another length
    ],
)
def test_what_counts_as_different(rows: Tensor, words: str) -> None:
    assert words in str(difference(lambda _: rows, torch.zeros(2), torch.ones(2, 4)))
    assert difference(lambda _: torch.ones(2, 4), torch.zeros(2), torch.ones(2, 4)) is None
    assert difference(lambda _: torch.zeros(2, 4), torch.zeros(2), torch.zeros(2, 4)) is None


@contextlib.contextmanager
def threads_set_to(number: int) -> Iterator[None]:
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(1)


class Observed(nn.Module):
    """The mean color, slowly; says who computes it, with how many threads, and how many images."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, int, int]] = []
        self.at_work = 0

    def forward(self, views: Tensor) -> Tensor:
        self.at_work += 1
        assert not torch.is_grad_enabled()
        self.seen.append((threading.get_ident(), torch.get_num_threads(), len(views)))
        time.sleep(0.02)
        self.at_work -= 1
        return views.mean(dim=(2, 3))


def test_each_thread_computes_by_itself_and_the_number_of_threads_stays() -> None:
    backbone = Observed()
    with threads_set_to(3):
        rows = rows_by(Forward(backbone, 64), images(32 * 6 + 1))
        assert torch.get_num_threads() == 3
        started = []
        other = threading.Thread(target=lambda: started.append(torch.get_num_threads()))
        other.start()
        other.join()
        assert started == [3]
    assert torch.equal(rows, images(32 * 6 + 1).mean(dim=(2, 3)))
    assert {threads for _, threads, _ in backbone.seen} == {1}
    assert sorted(number for _, _, number in backbone.seen) == [1, *[32] * 6]
    assert len({thread for thread, _, _ in backbone.seen} - {threading.get_ident()}) == 3


def test_compiled_networks_compute_a_batch_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = Observed()
    monkeypatch.setattr(backbone, "_compiled_call_impl", backbone.forward)
    with threads_set_to(2):
        rows_by(Forward(backbone, 64), images(70))
    assert backbone.seen == [(threading.get_ident(), 2, 70)]


@pytest.mark.parametrize("threads", [1, 3])
def test_a_stream_gives_each_batch_in_order_with_what_comes_beside_it(threads: int) -> None:
    batches = [images(number) for number in (70, 1, 33)]
    given = [(batches[0], "a"), (None, "no image"), (batches[1], "b"), (batches[2], "c")]
    with threads_set_to(threads), frozen(Observed(), "cpu"):
        found = list(Forward(Observed(), 64).stream(given))
    assert [beside for _, beside in found] == ["a", "no image", "b", "c"]
    assert found[1][0] is None
    for (rows, _), batch in zip([found[0], *found[2:]], batches, strict=True):
        assert rows is not None
        assert torch.equal(rows, batch.mean(dim=(2, 3)))


def test_the_next_batches_are_read_while_threads_compute_and_not_all_of_them() -> None:
    read = []

    def batches() -> Iterator[tuple[Tensor, int]]:
        for number in range(40):
            read.append(number)
            yield images(8), number

    with threads_set_to(2), contextlib.closing(Forward(Observed(), 64).stream(batches())) as computed:
        next(computed), next(computed), next(computed)
        assert 4 <= len(read) <= 4 + CHUNKS_AHEAD * 2


def test_free_memory_goes_back_every_few_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    returned = []
    monkeypatch.setattr(forward, "give_back_free_memory", lambda: returned.append(1))
    batches = [(images(1), number) for number in range(2 * BATCHES_BETWEEN_RETURNS + 1)]
    with frozen(Observed(), "cpu"):
        assert len(list(Forward(Observed(), 64).stream(batches))) == len(batches)
    assert len(returned) == 2


def test_nothing_is_at_work_after_a_stream_was_left() -> None:
    backbone = Observed()
    with threads_set_to(2):
        computed = Forward(backbone, 64).stream((images(32), number) for number in range(40))
        next(computed)
        computed.close()
        assert backbone.at_work == 0
        seen = len(backbone.seen)
        time.sleep(0.1)
    assert len(backbone.seen) == seen


@pytest.mark.parametrize("threads", [1, 2])
def test_a_fault_of_one_chunk_is_the_streams(threads: int) -> None:
    batch = images(70)
    batch[40] = torch.nan
    with threads_set_to(threads), pytest.raises(DiscoZooError, match="not finite"):
        list(Forward(Observed(), 64).stream([(images(70), 0), (batch, 1)]))


@pytest.mark.parametrize(("size", "number"), [(16, 32), (64, 32), (96, 16), (128, 8), (224, 4), (384, 1), (1024, 1)])
def test_a_chunk_is_a_power_of_two_with_about_as_many_pixels(size: int, number: int) -> None:
    assert chunk_of(size) == number
