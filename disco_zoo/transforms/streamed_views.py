"""The batches of an epoch from a stream: its logical streams shared by processes, and by the workers of each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from disco_zoo.core.loader import BoundedLoader, unchanged
from disco_zoo.data.dataset import ImageSource
from disco_zoo.data.pixels.bit_depth import ValueRanges
from disco_zoo.data.source_image import SourceImage
from disco_zoo.data.stream_order import LogicalStream
from disco_zoo.data.stream_source import StreamShards
from disco_zoo.data.unreadable import Used, use_or_replace
from disco_zoo.transforms.view_dataset import ViewPlan, collate_views


@dataclass(frozen=True)
class StreamShare:
    """One process's part of an epoch.

    Attributes:
        streams: S, over all processes; a multiple of `num_processes`.
        shuffle_buffer: images waiting in all S streams together.
        rows: a batch takes of each stream.
        num_batches: of the whole epoch.
        start_batch: first batch to deliver.
    """

    streams: int
    shuffle_buffer: int
    rows: int
    num_batches: int
    start_batch: int
    seed: int
    epoch: int
    rank: int = 0
    num_processes: int = 1

    @property
    def own_streams(self) -> list[int]:
        return list(range(self.rank, self.streams, self.num_processes))

    def open(self, shards: StreamShards, stream: int) -> LogicalStream:
        """A logical stream where the share begins; what was seen before is passed by and not decoded."""
        opened = LogicalStream(
            shards,
            stream,
            self.streams,
            capacity=max(1, self.shuffle_buffer // self.streams),
            seed=self.seed,
            epoch=self.epoch,
        )
        for _ in range(self.start_batch * self.rows):
            opened.advance()
        return opened


class Waiting(ImageSource):
    """What a logical stream has drawn, as image 0, with those that wait behind it: they replace an unreadable one."""

    def __init__(self, name: str, stream: LogicalStream) -> None:
        super().__init__(name, "train")
        self.stream = stream

    def __len__(self) -> int:
        return self.stream.candidates

    def encoded(self, index: int) -> bytes:
        return self.stream.candidate(index).read()

    def path(self, index: int) -> str:
        return self.stream.candidate(index).name

    def ranges_of(self, index: int) -> ValueRanges:
        return self.stream.shards.ranges

    def _hash_content(self, digest: hashlib._Hash) -> None:
        raise NotImplementedError("what waits is no data set")

    def next(self, use: Callable[[SourceImage, int], Used]) -> tuple[Used, int, list[tuple[int, str]]]:
        """What `use` makes of the next image, or of a replacement, and its number.

        Returns:
            That, the number, and (number, why) of an image that cannot be read.
        """
        self.stream.advance()
        made, place, error = use_or_replace(
            self, 0, lambda image, place: use(image, self.stream.candidate(place).number)
        )
        wanted = self.stream.candidate(0)
        unreadable = [] if error is None else [(wanted.number, f"{wanted.name} is unreadable: {error.reason}")]
        return made, self.stream.candidate(place).number, unreadable


class StreamParts(IterableDataset[dict[str, Any]]):
    """Each batch of a share as `collate_views` makes them, or in a worker that worker's streams' part of it."""

    def __init__(self, name: str, shards: StreamShards, share: StreamShare, plan: ViewPlan) -> None:
        self.name, self.shards, self.share, self.plan = name, shards, share, plan

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker, share = get_worker_info(), self.share
        numbers = share.own_streams if worker is None else share.own_streams[worker.id :: worker.num_workers]
        streams = [Waiting(self.name, share.open(self.shards, number)) for number in numbers]
        for _ in range(share.start_batch, share.num_batches):
            yield collate_views([self._item(stream) for _ in range(share.rows) for stream in streams])

    def _item(self, stream: Waiting) -> dict[str, Any]:
        def draw(image: SourceImage, number: int) -> list[Tensor]:
            return self.plan.draw(image, self.share.seed, self.share.epoch, number)

        views, number, unreadable = stream.next(draw)
        return {"views": views, "index": number, "unreadable": unreadable}


class StreamBatches:
    """The batches of a share: the rows of its streams in turn, whichever worker drew them.

    Args:
        workers: processes that read and draw views, at most one for each stream; 0 for none.
        device: where the batches go.
    """

    def __init__(self, parts: StreamParts, workers: int, device: torch.device) -> None:
        self.parts, self.device = parts, device
        self.workers = min(workers, len(parts.share.own_streams))

    def __len__(self) -> int:
        return self.parts.share.num_batches - self.parts.share.start_batch

    def __iter__(self) -> Iterator[dict[str, Any]]:
        loader = BoundedLoader(
            self.parts,
            batch_size=None,
            collate=unchanged,
            workers=self.workers,
            pin_memory=self.device.type == "cuda",
        )
        return self._whole(iter(loader))  # whose workers begin now

    def _whole(self, loaded: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        pieces: list[dict[str, Any]] = []
        for piece in loaded:  # of the workers in turn
            pieces.append(piece)
            if len(pieces) == max(1, self.workers):
                yield pieces[0] if len(pieces) == 1 else self._joined(pieces)
                pieces = []

    def _joined(self, pieces: list[dict[str, Any]]) -> dict[str, Any]:
        """The pieces' rows in the order in which one worker gives them: the streams in turn."""
        streams, rows = torch.arange(len(self.parts.share.own_streams)), self.parts.share.rows
        turns = torch.arange(rows)[:, None] * len(streams)
        places = torch.cat([(turns + streams[first :: len(pieces)]).flatten() for first in range(len(pieces))])
        order = places.argsort()
        columns = zip(*(piece["views"] for piece in pieces), strict=True)
        return {
            "views": [torch.cat(column)[order] for column in columns],
            "index": torch.cat([piece["index"] for piece in pieces])[order],
            "unreadable": [pair for piece in pieces for pair in piece["unreadable"]],
        }
