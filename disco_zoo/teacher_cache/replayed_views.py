"""The views of an epoch as a dataset, replayed from the caches of a run with the teacher's rows beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from disco_zoo.datasets import ImageSource, load_or_replace
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
        image, used, error = load_or_replace(self.source, index)
        item: dict[str, Any] = {"views": [], "targets": [], "stale": [], "index": used}
        item["unreadable"] = [] if error is None else [(index, str(error))]
        for kind in self.kinds:
            slots = slots_of_step(self.seed, used, self.epoch, kind.rows.slots, kind.num_views, kind.draw.kind)
            self._replay(item, image, used, kind, slots)
        if self.companions is not None:
            self._add_companion(item, self.companions(self.epoch, used))
        return item

    def _add_companion(self, item: dict[str, Any], wanted: int) -> None:
        image, other, error = load_or_replace(self.source, wanted)
        item["unreadable"] += [] if error is None else [(wanted, str(error))]
        for kind in self.kinds:
            slots = slots_of_companion(self.seed, item["index"], self.epoch, kind.rows.slots, kind.num_views)
            self._replay(item, image, other, kind, slots)

    def _replay(
        self, item: dict[str, Any], image: Image.Image, index: int, kind: ReplayedKind, slots: Sequence[int]
    ) -> None:
        for slot in slots:
            view = kind.draw(image, index, slot)
            if not kind.rows.is_first_view(view, index, slot):
                item["stale"].append(
                    f"image {index} ({self.source.path(index)}) is not what the teacher saw: it, or what draws views, "
                    f"changed since. Type: disco-zoo cache rm {kind.rows.cache.path.name}, and repeat the command"
                )
            item["views"].append(view)
            item["targets"].append(kind.rows.row(index, slot))


def collate_replayed(items: list[dict[str, Any]]) -> dict[str, Any]:
    """As `collate_views`, with "targets": [float16 (B, D), ...] and "stale": all that was said."""
    targets: list[Tensor] = [torch.stack(column) for column in zip(*(item["targets"] for item in items), strict=True)]
    return {**collate_views(items), "targets": targets, "stale": [text for item in items for text in item["stale"]]}
