"""The views of an epoch as a dataset, replayed from the caches of a run with the teacher's rows beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from disco_zoo.datasets import ImageSource, use_or_replace
from disco_zoo.errors import UnreadableImage
from disco_zoo.source_image import SourceImage
from disco_zoo.teacher_cache.cached_rows import CachedRows
from disco_zoo.teacher_cache.slots import SlotDraw, slots_of_companion, slots_of_step
from disco_zoo.view_dataset import Companions, collate_views


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


class ReplayedViews(Dataset[dict[str, Any]]):
    """As `ViewDataset`, with "targets", the teacher's float16 rows (D,) of the views, and "stale".

    "stale" says of a view, in one line, that it is not what the teacher saw: the image, or what draws views, changed.
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
            "stale": [one.stale for one in found if one.stale is not None],
            "index": used,
            "unreadable": unreadable,
        }

    def _replay(
        self, index: int, slots_of: Callable[[ReplayedKind, int], list[int]]
    ) -> tuple[list[_Replayed], int, UnreadableImage | None]:
        """The views of an image or its replacement in the slots that `slots_of` names."""

        def draw(image: SourceImage, used: int) -> list[_Replayed]:
            return [self._one(kind, image, used, slot) for kind in self.kinds for slot in slots_of(kind, used)]

        return use_or_replace(self.source, index, draw)

    def _one(self, kind: ReplayedKind, image: SourceImage, index: int, slot: int) -> _Replayed:
        view = kind.draw(image, index, slot)
        if kind.rows.is_first_view(view, index, slot):
            return _Replayed(view, kind.rows.row(index, slot))
        stale = (
            f"image {index} ({self.source.path(index)}) is not what the teacher saw: it, or what draws views, "
            f"changed since. Type: disco-zoo cache rm {kind.rows.cache.path.name}, then the command with --resume"
        )
        return _Replayed(view, kind.rows.row(index, slot), stale)


@dataclass(frozen=True)
class _Replayed:
    """A view, the teacher's row of it, and what is wrong if it is not what the teacher saw."""

    view: Tensor
    target: Tensor
    stale: str | None = None


def collate_replayed(items: list[dict[str, Any]]) -> dict[str, Any]:
    """As `collate_views`, with "targets": [float16 (B, D), ...] and "stale": all that was said."""
    targets: list[Tensor] = [torch.stack(column) for column in zip(*(item["targets"] for item in items), strict=True)]
    return {**collate_views(items), "targets": targets, "stale": [text for item in items for text in item["stale"]]}
