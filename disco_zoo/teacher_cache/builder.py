"""Building a cache: the teacher's forward over all views of all images, shared by the processes of a run.

A block is up to 64 images in up to 16 slots, drawn by a loader's workers. The teacher sees one slot of a block at a
time, so a row does not depend on how many processes there are. The processes go through their blocks in step: when one
fails or hears Ctrl-C, all of them stop and say so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from disco_zoo.core.console import StepProgress, console
from disco_zoo.core.distributed import Heartbeat, gather_objects, num_processes, on_first_process, rank
from disco_zoo.core.interrupts import InterruptFlag
from disco_zoo.core.loader import BoundedLoader
from disco_zoo.data.dataset import ImageSource
from disco_zoo.data.source_image import SourceImage
from disco_zoo.data.unreadable import UnreadableTally
from disco_zoo.errors import BadCache, DiscoZooError, Interrupted, UnreadableImage
from disco_zoo.teacher_cache.cache_dir import CacheFolder
from disco_zoo.teacher_cache.journal import BLOCK_IMAGES, Block, missing_blocks, view_crc

Item = tuple[int, int, int]  # image, first slot, number of slots
Draw = Callable[[SourceImage, int, int], Tensor]
"""Maps image, number and slot to the view uint8 (3, S, S). It must survive pickling: workers use it."""


@dataclass(frozen=True)
class BlockViews:
    """All views of a block.

    Attributes:
        views: uint8 (slots, n, 3, S, S); zeros where the image cannot be read.
        crcs: uint32 (slots, n), 0 where the image cannot be read.
        unreadable: what was wrong with those, by number.
    """

    views: Tensor
    crcs: np.ndarray
    unreadable: dict[int, str]


class SlotViews(Dataset[tuple[Tensor, list[int], tuple[int, str] | None]]):
    """Some slots of an image: its views (slots, 3, S, S), their CRCs, and what was wrong with the image if any."""

    def __init__(self, source: ImageSource, draw: Draw, view_size: int) -> None:
        self.source, self.draw, self.view_size = source, draw, view_size

    def __getitem__(self, item: Item) -> tuple[Tensor, list[int], tuple[int, str] | None]:
        index, first_slot, slots = item
        numbers = range(first_slot, first_slot + slots)
        try:
            image = self.source.opened(index)
            views = [self.draw(image, index, slot) for slot in numbers]
        except UnreadableImage as error:
            nothing = torch.zeros((slots, 3, self.view_size, self.view_size), dtype=torch.uint8)
            return nothing, [0] * slots, (index, str(error))
        return torch.stack(views), [view_crc(view) for view in views], None


def block_loader(dataset: SlotViews, blocks: Sequence[Block], workers: int) -> BoundedLoader:
    """A loader of `BlockViews`, one block after another in their order."""
    images = len(dataset.source)
    batches = []
    for block in blocks:
        numbers = range(block.first, min(block.first + BLOCK_IMAGES, images))
        batches.append([(index, block.first_slot, block.slots) for index in numbers])
    return BoundedLoader(
        dataset,
        batch_sampler=batches,
        collate=_collate,
        workers=workers,
        prefetch_factor=1 if workers else None,  # a block of sixteen views at 224 px is 150 MB
    )


def _collate(items: list[tuple[Tensor, list[int], tuple[int, str] | None]]) -> BlockViews:
    views = torch.stack([views for views, _, _ in items], dim=1)
    crcs = np.array([crcs for _, crcs, _ in items], dtype=np.uint32).T
    return BlockViews(views, crcs, dict(fault for _, _, fault in items if fault is not None))


SLOTS_A_BLOCK = 16  # bounds the views in memory: 16 views of 64 images at 224 px are 150 MB
LOCK_POLL_SECONDS = 5.0


Rows = Callable[[Tensor], Tensor]
"""Maps views uint8 (n, 3, S, S) to rows (n, D)."""


@dataclass(frozen=True)
class Building:
    """The inputs of a build.

    Attributes:
        label: shown beside the progress.
        views: draws the views to be seen.
        rows_of: the teacher.
        facts: of cache.json; the key is in them.
        max_unreadable_images: above it the build stops.
        workers: processes that draw views, for each process of the run.
        unit: plural of what the progress counts.
        instead: what to type where the cache is impossible.
    """

    label: str
    views: SlotViews
    rows_of: Rows
    facts: dict[str, Any]
    max_unreadable_images: int
    workers: int
    unit: str = "views"
    instead: str = "Type: --set teacher.cache_views=null"


def build_cache(cache: CacheFolder, slots: int, building: Building) -> None:
    """Compute what the cache lacks of `slots` views of each image; nothing where it is whole. All processes call this.

    Raises:
        BadCache: no room, no permission, or a row that half precision cannot hold.
        BadData: too many images cannot be read.
        Interrupted: Ctrl-C; what is finished is kept.
        DiscoZooError: another process stopped.
    """
    if gather_objects(cache.serves(building.facts, slots) if rank() == 0 else None)[0]:
        cache.require_seen(building.facts)
        return  # without a lock: it may be another's, and not ours to write
    with ExitStack() as claim:

        def prepare(beat: Heartbeat) -> None:
            claim.enter_context(cache.claimed(_Waiting(cache.path.name, beat)))
            cache.create(building.facts, slots)

        on_first_process(prepare)
        cache.require_seen(building.facts)
        found = missing_blocks(cache.missing(slots), SLOTS_A_BLOCK) if rank() == 0 else None
        missing = gather_objects(found)[0]
        if missing:
            _build_blocks(cache, missing, slots, building)


class _Waiting:
    """Says once that another process builds the cache, and waits a little each time."""

    def __init__(self, name: str, beat: Heartbeat) -> None:
        self.name, self.beat, self.told = name, beat, False

    def __call__(self) -> None:
        if not self.told:
            console.print(f"teacher cache {self.name}: another process is building it; waiting", soft_wrap=True)
        self.told = True
        time.sleep(LOCK_POLL_SECONDS)
        self.beat()


def _build_blocks(cache: CacheFolder, missing: list[Block], slots: int, building: Building) -> None:
    """This process's share of the missing blocks, in step with the other processes."""
    images, share = cache.images, missing[rank() :: num_processes()]
    left = sum(_views_of(block, images) for block in missing)
    tally = UnreadableTally(building.max_unreadable_images)
    tally.messages = cache.journal.unreadable()
    loader = iter(block_loader(building.views, share, building.workers))
    with InterruptFlag() as flag, StepProgress(building.label, images * slots, images * slots - left) as progress:
        for turn in range(-(-len(missing) // num_processes())):
            block = share[turn] if turn < len(share) else None
            done = _Turn()
            try:
                if block is not None:
                    done = _do_block(cache, block, next(loader), building)
            except DiscoZooError as error:
                done = _Turn(error=error)
            _finish_turn(gather_objects(done.for_others(flag.raised)), done, tally, progress, building.unit)


# Views done, what was wrong with which images, an error, whether Ctrl-C was heard.
_Told = tuple[int, dict[int, str], str | None, bool]


@dataclass
class _Turn:
    """One process's results of a turn."""

    views: int = 0
    unreadable: dict[int, str] | None = None
    error: DiscoZooError | None = None

    def for_others(self, interrupted: bool) -> _Told:
        return self.views, self.unreadable or {}, None if self.error is None else str(self.error), interrupted


def _finish_turn(turns: list[_Told], own: _Turn, tally: UnreadableTally, progress: StepProgress, unit: str) -> None:
    """Count what all processes did, or stop with them."""
    if own.error is not None:
        raise own.error
    for number, (_, _, error, _) in enumerate(turns):
        if error is not None:
            raise DiscoZooError(f"process {number} stopped: {error}")
    for _, unreadable, _, _ in turns:
        for index, message in unreadable.items():
            tally.add(index, message)
    tally.check()
    progress.advance(progress.done + sum(views for views, _, _, _ in turns), unit=unit)
    if any(interrupted for _, _, _, interrupted in turns):  # after the last block, too: a training may follow
        raise Interrupted(
            f"stopped after {progress.done} of {progress.total} {unit}; they are kept. To go on, repeat the command"
        )


def _do_block(cache: CacheFolder, block: Block, drawn: BlockViews, building: Building) -> _Turn:
    rows = np.stack([building.rows_of(views).half().cpu().numpy() for views in drawn.views])
    for index in drawn.unreadable:
        rows[:, index - block.first] = 0
    if not np.isfinite(rows).all():
        what = "are no numbers" if np.isnan(rows).any() else "go beyond half precision's 65504"
        raise BadCache(f"features of {building.facts['title']} {what}: a cache cannot hold them. {building.instead}")
    cache.write(block, rows, drawn.crcs, drawn.unreadable, rank())
    return _Turn(rows.shape[0] * rows.shape[1], drawn.unreadable)


def _views_of(block: Block, images: int) -> int:
    return min(BLOCK_IMAGES, images - block.first) * block.slots
