"""The views of an epoch as a dataset, drawn again from a cache's seed, with the teacher's cached rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from disco_zoo.data.dataset import ImageSource
from disco_zoo.data.source_image import SourceImage
from disco_zoo.data.unreadable import use_or_replace
from disco_zoo.errors import UnreadableImage
from disco_zoo.teacher_cache.rows import CachedRows, SlotDraw, slots_of_companion, slots_of_step
from disco_zoo.transforms.view_dataset import Companions, collate_views


@dataclass(frozen=True)
class ReplayedKind:
    """Views of one size: big ones, or small crops.

    Attributes:
        draw: draws the view of a slot.
        num_views: V, taken a step.
        rows: the teacher's, of M slots an image.
    """

    draw: SlotDraw
    num_views: int
    rows: CachedRows


@dataclass(frozen=True)
class Mismatch:
    """Where a replayed view and the teacher's row do not belong together.

    Attributes:
        kind: of view, as the run counts them.
    """

    kind: int
    image: int
    slot: int


class ReplayedViews(Dataset[dict[str, Any]]):
    """As `ViewDataset`, with "targets", the teacher's float16 rows (D,) of the views, and "mismatches".

    Those are views that are not what the teacher saw, or whose rows are not what it said.
    """

    def __init__(
        self,
        source: ImageSource,
        kinds: Sequence[ReplayedKind],
        *,
        seed: int,
        epoch: int,
        companions: Companions | None = None,
    ) -> None:
        self.source, self.kinds, self.seed, self.epoch, self.companions = source, kinds, seed, epoch, companions

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        def own_slots(kind: ReplayedKind, used: int) -> list[int]:
            return slots_of_step(self.seed, used, self.epoch, kind.rows.slots, kind.num_views, kind.draw.kind)

        found, used, error = self._replay(index, own_slots)
        unreadable = [] if error is None else [(index, str(error))]
        if self.companions is not None:
            other = self.companions(self.epoch, used)

            def other_slots(kind: ReplayedKind, _: int) -> list[int]:
                return slots_of_companion(self.seed, used, self.epoch, kind.rows.slots, kind.num_views)

            more, _, error = self._replay(other, other_slots)
            found += more
            unreadable += [] if error is None else [(other, str(error))]
        return {
            "views": [one.view for one in found],
            "targets": [one.target for one in found],
            "mismatches": [one.mismatch for one in found if one.mismatch is not None],
            "index": used,
            "unreadable": unreadable,
        }

    def _replay(
        self, index: int, slots_of: Callable[[ReplayedKind, int], list[int]]
    ) -> tuple[list[_Replayed], int, UnreadableImage | None]:
        """The views of an image or its replacement in the slots that `slots_of` names."""

        def draw(image: SourceImage, used: int) -> list[_Replayed]:
            numbered = enumerate(self.kinds)
            return [self._one(number, image, used, slot) for number, kind in numbered for slot in slots_of(kind, used)]

        return use_or_replace(self.source, index, draw)

    def _one(self, number: int, image: SourceImage, index: int, slot: int) -> _Replayed:
        kind = self.kinds[number]
        view, row = kind.draw(image, index, slot), kind.rows.row(index, slot)
        fits = kind.rows.belongs(row, view, index, slot)
        return _Replayed(view, row, None if fits else Mismatch(number, index, slot))


@dataclass(frozen=True)
class _Replayed:
    """A view, the teacher's row of it, and where they are if they do not belong together."""

    view: Tensor
    target: Tensor
    mismatch: Mismatch | None


def collate_replayed(items: list[dict[str, Any]]) -> dict[str, Any]:
    """As `collate_views`, with "targets": [float16 (B, D), ...] and "mismatches"."""
    targets: list[Tensor] = [torch.stack(column) for column in zip(*(item["targets"] for item in items), strict=True)]
    mismatches = [mismatch for item in items for mismatch in item["mismatches"]]
    return {**collate_views(items), "targets": targets, "mismatches": mismatches}
