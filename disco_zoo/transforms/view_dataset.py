"""The views of an epoch as a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor
from torch.utils.data import Dataset

from disco_zoo.core.random_streams import stream_seed
from disco_zoo.core.schema import Share
from disco_zoo.data.dataset import ImageSource, UnreadableImage
from disco_zoo.data.source_image import SourceImage
from disco_zoo.data.unreadable import use_or_replace
from disco_zoo.transforms.view_recipes import VIEW_RECIPES, View, draw_view

SMALL_SIZE_OF_VIEW = 96 / 224  # SwAV's small crops beside its big ones


class Companions(Protocol):
    """Another image for each image, anew in each epoch (BINGO's bags). It must survive pickling: workers use it."""

    def __call__(self, epoch: int, index: int) -> int: ...


@dataclass(frozen=True)
class ViewPlan:
    """The views drawn of each image: `num_views` by `view`, then `num_small` by `small`, numbered in this order."""

    view: View
    num_views: int
    small: View | None = None
    num_small: int = 0

    def draw(self, image: SourceImage, seed: int, epoch: int, index: int) -> list[Tensor]:
        """uint8 views (3, S, S), then small ones (3, s, s)."""
        views = [draw_view(self.view, image, seed, epoch, index, n) for n in range(self.num_views)]
        if self.small is not None:
            numbers = range(self.num_views, self.num_views + self.num_small)
            views += [draw_view(self.small, image, seed, epoch, index, n) for n in numbers]
        return views


def multi_crop(
    *,
    size: PositiveInt | None = None,
    small_views: NonNegativeInt = 0,
    small_size: PositiveInt | None = None,
    small_crop_scale: tuple[Share, Share] = (0.05, 0.14),
) -> dict[str, Any]:
    """The keys of a recipe's `views:` that every view recipe has; this signature is their schema.

    Args:
        size: side in pixels at which views are drawn; None for the largest at which student or teacher looks. A network
            brings them to its own: a view that was drawn larger than the image is, and is then reduced, is blurred,
            as images are not when the student is measured. So draw images of 64 pixels at 64, for a student of 64,
            and let the teacher enlarge them.
        small_views: small crops besides the big views, for methods that take them (SwAV, SEED).
        small_size: their side in pixels, as drawn; None for the proportion 96 to 224. Teacher and student, whose
            input sizes may differ, see them in the same proportion to their own.
        small_crop_scale: their area as a share of the image.
    """
    return {"size": size, "small_views": small_views, "small_size": small_size, "small_crop_scale": small_crop_scale}


def small_size_of(views: Mapping[str, Any], view_size: int) -> int:
    """Side of the small views in pixels, as drawn."""
    return views.get("small_size") or round(view_size * SMALL_SIZE_OF_VIEW)


def view_plan(views: Mapping[str, Any], view_size: int, num_views: int) -> ViewPlan:
    """The plan of a recipe's `views:` section, with `num_views` big views of side `view_size`."""
    common = multi_crop()
    options = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in views.items()
        if key != "recipe" and key not in common
    }
    recipe = VIEW_RECIPES[views["recipe"]]
    num_small = views.get("small_views", 0)
    if not num_small:
        return ViewPlan(recipe(view_size, **options), num_views)
    scale = tuple(views.get("small_crop_scale", common["small_crop_scale"]))
    small = recipe(small_size_of(views, view_size), **{**options, "crop_scale": scale})
    return ViewPlan(recipe(view_size, **options), num_views, small, num_small)


class ViewDataset(Dataset[dict[str, Any]]):
    """The views of one epoch: item i is {"views": [uint8 (3, S, S), ...], "index": i, "unreadable": [...]}.

    With companions, the views of the other image follow, drawn from a stream of image i's own, so that two images
    with one companion see it differently. An image that cannot be read is replaced by the next one that can, so
    that batches keep their size; its index is reported under "unreadable" for the engine to count.
    """

    def __init__(
        self, source: ImageSource, plan: ViewPlan, *, seed: int, epoch: int, companions: Companions | None = None
    ) -> None:
        self.source, self.plan, self.seed, self.epoch, self.companions = source, plan, seed, epoch, companions

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        views, used, error = self._draw(index, self.seed)
        unreadable = [] if error is None else [(index, str(error))]
        if self.companions is not None:
            other = self.companions(self.epoch, used)
            more, _, error = self._draw(other, stream_seed("companion", self.seed), key_index=used)
            views += more
            unreadable += [] if error is None else [(other, str(error))]
        return {"views": views, "index": used, "unreadable": unreadable}

    def _draw(
        self, index: int, seed: int, key_index: int | None = None
    ) -> tuple[list[Tensor], int, UnreadableImage | None]:
        """Views of an image or its replacement, keyed by `key_index` or by the index of the image that was used."""

        def draw(image: SourceImage, used: int) -> list[Tensor]:
            return self.plan.draw(image, seed, self.epoch, used if key_index is None else key_index)

        return use_or_replace(self.source, index, draw)


def collate_views(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack items: {"views": [uint8 (B, 3, S, S), ...], "index": int64 (B,), "unreadable": [(index, why)]}."""
    views = [torch.stack(column) for column in zip(*(item["views"] for item in items), strict=True)]
    index = torch.tensor([item["index"] for item in items], dtype=torch.int64)
    return {"views": views, "index": index, "unreadable": [pair for item in items for pair in item["unreadable"]]}
