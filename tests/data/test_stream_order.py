"""The order of a stream: every image once, the same for any processes and workers, well mixed, in little room."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from data_makers import encode
from PIL import Image
from slow_params import slow_but

from disco_zoo.data.stream_order import LogicalStream, shards_of_stream
from disco_zoo.data.stream_source import POSITIONS, StreamedImage, StreamShards
from disco_zoo.errors import BadData
from disco_zoo.transforms.streamed_views import StreamBatches, StreamParts, StreamShare, Waiting
from disco_zoo.transforms.view_dataset import view_plan

CPU = torch.device("cpu")
PLAN = view_plan({"recipe": "plain"}, 16, 1)


class CountedShards(StreamShards):
    """Shards of given lengths; image n of all is grey level n, broken ones hold no image. Counts what is held."""

    def __init__(self, lengths: list[int], broken: tuple[int, ...] = ()) -> None:
        self.lengths, self.broken, self.num_shards = lengths, broken, len(lengths)
        self.read = 0

    def images(self, shard: int) -> Iterator[StreamedImage]:
        first = sum(self.lengths[:shard])
        for position in range(self.lengths[shard]):
            self.read += 1
            number = shard * POSITIONS + position
            yield StreamedImage(number, f"image {first + position}", functools.partial(self.bytes, first + position))

    def bytes(self, level: int) -> bytes:
        return b"broken" if level in self.broken else encode(Image.new("RGB", (16, 16), (level % 256,) * 3))

    def hash_content(self, digest: hashlib._Hash) -> None:
        digest.update(str(self.lengths).encode())

    def all_numbers(self) -> list[int]:
        return [shard * POSITIONS + i for shard, length in enumerate(self.lengths) for i in range(length)]


def share(**options: int) -> StreamShare:
    return StreamShare(
        **{
            "streams": 4,
            "shuffle_buffer": 40,
            "rows": 2,
            "num_batches": 10,
            "start_batch": 0,
            "seed": 3,
            "epoch": 1,
            **options,
        }
    )


def batches(shards: StreamShards, workers: int = 0, **options: int) -> list[dict[str, torch.Tensor]]:
    return list(StreamBatches(StreamParts("s", shards, share(**options), PLAN), workers, CPU))


def numbers(shards: StreamShards, workers: int = 0, **options: int) -> list[list[int]]:
    return [batch["index"].tolist() for batch in batches(shards, workers, **options)]


def test_every_image_comes_once_an_epoch() -> None:
    shards = CountedShards([5] * 16)
    for epoch in (0, 1):
        seen = list(itertools.chain(*numbers(shards, epoch=epoch)))
        assert sorted(seen) == shards.all_numbers()
    assert numbers(shards, epoch=0) != numbers(shards, epoch=1) != numbers(shards, seed=4)
    assert numbers(shards, epoch=1) == numbers(shards)


def test_with_shards_of_other_lengths_all_but_the_remainder_come_once() -> None:
    """80 images in streams of 20 each: each stream gives its own once and no other."""
    shards = CountedShards([3, 5, 2, 7, 1, 6, 9, 8] * 3)
    lengths = [sum(shards.lengths[n] for n in shards_of_stream(24, s, 4, seed=3, epoch=1)) for s in range(4)]
    seen = list(itertools.chain(*numbers(shards, num_batches=min(lengths) // 2)))
    assert len(seen) == len(set(seen)) == min(lengths) // 2 * 8
    longer = list(itertools.chain(*numbers(shards, num_batches=max(lengths) // 2)))
    assert len(longer) > len(set(longer))  # the shorter ones have begun again


def test_each_stream_reads_shards_of_its_own_in_another_order_each_epoch() -> None:
    for epoch in range(3):
        dealt = [shards_of_stream(23, stream, 4, seed=0, epoch=epoch) for stream in range(4)]
        assert sorted(itertools.chain(*dealt)) == list(range(23))
        assert {len(part) for part in dealt} == {5, 6}
    assert shards_of_stream(23, 1, 4, seed=0, epoch=0) != shards_of_stream(23, 1, 4, seed=0, epoch=1)


@pytest.mark.parametrize("processes", [2, 4])
def test_batches_do_not_depend_on_processes(processes: int) -> None:
    shards = CountedShards([5] * 16)
    whole = numbers(shards)
    parts = [numbers(shards, rank=rank, num_processes=processes) for rank in range(processes)]
    assert {len(batch) for part in parts for batch in part} == {8 // processes}
    assert [sorted(itertools.chain(*part)) for part in zip(*parts, strict=True)] == [sorted(batch) for batch in whole]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores, which is the point
@pytest.mark.parametrize("workers", slow_but([1, 2, 3, 4, 9], [2, 3]))
def test_batches_do_not_depend_on_workers(workers: int) -> None:
    shards = CountedShards([5] * 16, broken=(3, 40))
    plain, shared = batches(shards), batches(shards, workers)
    assert [batch["index"].tolist() for batch in shared] == [batch["index"].tolist() for batch in plain]
    assert all(torch.equal(a["views"][0], b["views"][0]) for a, b in zip(plain, shared, strict=True))
    found = [sorted(pair for batch in run for pair in batch["unreadable"]) for run in (plain, shared)]
    assert found[0] == found[1] != []


@pytest.mark.parametrize("start", [1, 4, 9, 10])
def test_a_resumed_epoch_delivers_the_rest(start: int) -> None:
    shards = CountedShards([5] * 16)
    assert numbers(shards, start_batch=start) == numbers(shards)[start:]
    assert numbers(shards, workers=2, start_batch=start) == numbers(shards)[start:]
    assert len(StreamBatches(StreamParts("s", shards, share(start_batch=start), PLAN), 0, CPU)) == 10 - start


def test_what_was_seen_before_is_not_decoded() -> None:
    decoded: list[int] = []

    class Watched(CountedShards):
        def bytes(self, level: int) -> bytes:
            decoded.append(level)
            return super().bytes(level)

    assert len(numbers(Watched([5] * 16), start_batch=9)) == 1
    assert len(decoded) == 8


def test_the_buffer_holds_as_many_as_it_should() -> None:
    shards = CountedShards([1000] * 4)
    stream = LogicalStream(shards, 0, 4, capacity=50, seed=0, epoch=0)
    for drawn in range(1, 900):
        stream.advance()
        assert shards.read == min(1000, 50 + drawn)
        assert stream.candidates <= 50 + 8


def test_mixing_against_a_full_shuffle() -> None:
    """A buffer of the whole stream is as far from the stored order as a permutation; half and a tenth are less so."""
    total, displacement = 4000, {}
    for capacity in (1, 400, 2000, 4000):
        stream = LogicalStream(CountedShards([total]), 0, 1, capacity=capacity, seed=0, epoch=0)
        seen = []
        for _ in range(total):
            stream.advance()
            seen.append(stream.candidate(0).number)
        assert sorted(seen) == list(range(total))
        displacement[capacity] = float(np.abs(np.asarray(seen) - np.arange(total)).mean())
    assert displacement[1] == 0
    assert displacement[4000] == pytest.approx(total / 3, rel=0.05)  # of a random permutation
    # In the buffer of c an image waits c draws in the mean, and it left the file c places early.
    assert 0.6 * 400 < displacement[400] < 1.2 * 400
    assert displacement[400] < displacement[2000] < displacement[4000]


def test_shards_of_one_class_each_are_mixed_in_a_batch() -> None:
    """A batch takes from all the streams, so even without a buffer it holds more than one shard."""
    held = [{number // POSITIONS for number in batch} for batch in numbers(CountedShards([5] * 16), shuffle_buffer=4)]
    assert all(len(shards) >= 4 for shards in held)


def test_an_unreadable_image_is_replaced_and_moves_no_other() -> None:
    shards, damaged = CountedShards([5] * 16), CountedShards([5] * 16, broken=(11, 12, 13))
    whole, seen = numbers(shards), numbers(damaged)
    odd = [(a, b) for a, b in zip(itertools.chain(*whole), itertools.chain(*seen), strict=True) if a != b]
    wanted = [shards.all_numbers()[level] for level in (11, 12, 13)]
    assert sorted(a for a, _ in odd) == wanted
    assert not {b for _, b in odd} & set(wanted)
    messages = dict(pair for batch in batches(damaged) for pair in batch["unreadable"])
    assert messages == {wanted[i]: f"image {11 + i} is unreadable: not an image" for i in range(3)}


def test_an_unreadable_image_at_the_end_is_replaced_by_an_earlier_one() -> None:
    shards = CountedShards([6])
    plain = LogicalStream(shards, 0, 1, capacity=3, seed=0, epoch=0)
    order = []
    for _ in range(6):
        plain.advance()
        order.append(plain.candidate(0).number)
    stream = Waiting("s", LogicalStream(CountedShards([6], (order[-1],)), 0, 1, capacity=3, seed=0, epoch=0))
    found = [stream.next(lambda image, _: image.rgb()) for _ in range(6)]
    assert [number for _, number, _ in found] == [*order[:-1], order[-2]]
    assert [number for _, _, unreadable in found for number, _ in unreadable] == [order[-1]]


def test_nothing_readable_and_nothing_at_all_are_one_line() -> None:
    with pytest.raises(BadData, match=r"images in a row are unreadable in s\. First: image"):
        batches(CountedShards([50] * 4, broken=tuple(range(200))))
    with pytest.raises(BadData, match="shards hold no images"):
        batches(CountedShards([0, 5, 0, 0]))
