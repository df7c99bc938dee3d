"""The order in which a stream's images are seen, a function of (seed, epoch) and of nothing that runs beside it.

The shards are dealt out to S logical streams, each with a shuffle buffer of its own. A batch takes its rows from the S
streams in turn, so it holds the same images however many processes and workers share the streams.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator

import torch

from disco_zoo.core.random_streams import stream_generator
from disco_zoo.data.stream_source import StreamedImage, StreamShards
from disco_zoo.errors import BadData

DRAWS_AT_ONCE = 1024
REMEMBERED = 8  # images that may stand in once more where none waits


def shards_of_stream(num_shards: int, stream: int, streams: int, *, seed: int, epoch: int) -> list[int]:
    """The shards that `stream` of `streams` reads in an epoch, in this order: each epoch deals them out anew."""
    order = torch.randperm(num_shards, generator=stream_generator("stream shards", seed, epoch))
    dealt: list[int] = order[stream::streams].tolist()
    return dealt


class LogicalStream:
    """One of the S streams of an epoch: its shards one after the other through a shuffle buffer.

    After its last image it begins again: shards are not equally long, and a batch takes as many rows of each stream.

    Args:
        capacity: images in the buffer.
    """

    def __init__(
        self, shards: StreamShards, stream: int, streams: int, *, capacity: int, seed: int, epoch: int
    ) -> None:
        self.shards, self.capacity, self.key = shards, capacity, (seed, epoch, stream)
        self.numbers = shards_of_stream(shards.num_shards, stream, streams, seed=seed, epoch=epoch)
        self._buffer: list[StreamedImage] = []
        self._drawn: deque[StreamedImage] = deque(maxlen=REMEMBERED)  # the last one first
        self._place = 0
        self._order = self._draw()

    def advance(self) -> None:
        """Draw the next image; `candidate(0)` is it."""
        self._drawn.appendleft(next(self._order))

    @property
    def candidates(self) -> int:
        """How many `candidate` knows."""
        return len(self._buffer) + len(self._drawn)

    def candidate(self, number: int) -> StreamedImage:
        """The image drawn last, or the `number`-th of those that may replace it: first what waits, then earlier ones.

        Looking at one does not take it, so that the order does not depend on what can be read.
        """
        waiting = len(self._buffer)
        if 0 < number <= waiting:
            return self._buffer[(self._place + number - 1) % waiting]
        return self._drawn[max(0, number - waiting)]

    def _draw(self) -> Iterator[StreamedImage]:
        draws = self._draws()
        while True:
            coming = self._one_pass()
            self._buffer = list(itertools.islice(coming, self.capacity))
            if not self._buffer:
                raise BadData("a stream's shards hold no images. Remove the empty ones, or lower data.streams")
            while self._buffer:
                self._place = int(next(draws) * len(self._buffer))
                drawn, following = self._buffer[self._place], next(coming, None)
                if following is not None:
                    self._buffer[self._place] = following
                else:
                    last = self._buffer.pop()
                    if self._place < len(self._buffer):
                        self._buffer[self._place] = last
                yield drawn

    def _one_pass(self) -> Iterator[StreamedImage]:
        return itertools.chain.from_iterable(self.shards.images(number) for number in self.numbers)

    def _draws(self) -> Iterator[float]:
        """Uniform numbers in [0, 1), each fixed by its count."""
        for block in itertools.count():
            generator = stream_generator("stream draws", *self.key, block)
            yield from torch.rand(DRAWS_AT_ONCE, dtype=torch.float64, generator=generator).tolist()
