"""Frozen features of a data source under EVAL (`transforms/eval.py`).

Extraction leaves no trace: module modes, device and random state are as before, so that an online kNN in the middle
of training does not change the training.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from disco_zoo.core.loader import BoundedLoader
from disco_zoo.core.schema import Interpolation
from disco_zoo.data.unreadable import UnreadableTally, unreadable_limit
from disco_zoo.errors import BadData, UnreadableImage, counted
from disco_zoo.models.encoder import frozen
from disco_zoo.models.engine import EngineName, forward_by
from disco_zoo.transforms.eval import eval_transform, normalize

Progress = Callable[[int, int], None]
"""Called with (images done, images in total)."""


class LabeledImages(Protocol):
    """The interface of a data source for evaluation."""

    name: str
    class_names: list[str] | None

    @property
    def labels(self) -> Sequence[int] | None: ...

    def __len__(self) -> int: ...

    def image(self, index: int) -> Image.Image: ...


@dataclass(frozen=True)
class Features:
    """Backbone features of N images.

    Attributes:
        features: float32 (N, D) on the CPU, as the backbone gives them (not normalised).
        labels: int64 (N,), or None for a source without labels.
        unreadable: one message for each image that could not be read and is therefore not among the N.
        engine: what computed them, with its version, or "torch".
    """

    features: Tensor
    labels: Tensor | None
    unreadable: tuple[str, ...] = ()
    engine: str = "torch"

    def __len__(self) -> int:
        return len(self.features)

    @property
    def truth(self) -> Tensor:
        """The labels, int64 (N,), of a source that has been checked to have some."""
        assert self.labels is not None
        return self.labels


_Item = tuple[Tensor | None, int, str]


class _EvalImages(Dataset[_Item]):
    """Item i: (uint8 (3, S, S), index, "") or, for an image that cannot be read, (None, index, message)."""

    def __init__(
        self, source: LabeledImages, indices: Sequence[int], transform: Callable[[Image.Image], Tensor]
    ) -> None:
        self.source, self.indices, self.transform = source, indices, transform

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> _Item:
        index = self.indices[position]
        try:
            return self.transform(self.source.image(index)), index, ""
        except UnreadableImage as error:
            return None, index, str(error)


def _collate(items: list[_Item]) -> tuple[Tensor | None, list[int], dict[int, str]]:
    """Stack what could be read: (uint8 (B, 3, S, S) or None, its indices, the messages of the others)."""
    images = [image for image, _, _ in items if image is not None]
    indices = [index for image, index, _ in items if image is not None]
    messages = {index: message for image, index, message in items if image is None}
    return torch.stack(images) if images else None, indices, messages


def extract_features(
    backbone: nn.Module,
    source: LabeledImages,
    *,
    image_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    resize_size: int | None = None,
    interpolation: Interpolation = "bilinear",
    batch_size: int = 128,
    device: torch.device | str = "cpu",
    workers: int = 0,
    indices: Sequence[int] | None = None,
    progress: Progress | None = None,
    engine: EngineName = "torch",
) -> Features:
    """Run the frozen backbone over a source under EVAL.

    Args:
        backbone: maps normalised float32 (B, 3, S, S) to features (B, D).
        source: the images, and their labels when it has them.
        image_size, resize_size, interpolation: see `eval_transform`.
        mean, std: of the backbone, for RGB in 0..1.
        device: where the backbone runs; it returns to its own device afterwards.
        workers: processes that read images; 0 reads in this process.
        indices: which images, in which order; all by default.
        progress: called after each batch with (images done, images in total).
        engine: what computes the features, see `forward_by`.

    Raises:
        BadData: no image, or too many that cannot be read.
        DiscoZooError: the output is not (B, D), or not finite; or the engine cannot be had, see `forward_by`.
    """
    chosen = range(len(source)) if indices is None else list(indices)
    if len(chosen) == 0:
        raise BadData(f"{source.name} has no images to evaluate. Give another --data.")
    loader = BoundedLoader(
        _EvalImages(source, chosen, eval_transform(image_size, resize_size, interpolation)),
        batch_size=batch_size,
        workers=workers,
        collate=_collate,
    )
    rows: Tensor | None = None  # filled in place: joining batches at the end would take the memory twice
    kept: list[int] = []
    tally = UnreadableTally(unreadable_limit(len(chosen)))
    forward = forward_by(backbone, image_size, engine=engine, num_images=len(chosen), device=device)

    def read() -> Iterator[tuple[Tensor | None, tuple[list[int], dict[int, str]]]]:
        for images, image_indices, messages in loader:
            if images is not None:
                images = normalize(images.to(device), mean, std, layout=forward.layout)
            yield images, (image_indices, messages)

    with frozen(backbone, device), contextlib.closing(forward.stream(read())) as computed:
        for features, (image_indices, messages) in computed:
            for index, message in messages.items():
                tally.add(index, message)
            tally.check()
            if features is not None:
                rows = torch.empty(len(chosen), features.shape[1]) if rows is None else rows
                rows[len(kept) : len(kept) + len(features)] = features
                kept += image_indices
            if progress is not None:
                progress(len(kept) + len(tally.messages), len(chosen))
    if rows is None:
        first = next(iter(tally.messages.values()))
        raise BadData(f"None of the {counted(len(chosen), 'image')} of {source.name} can be read. First: {first}")
    labels = None if source.labels is None else torch.tensor([source.labels[i] for i in kept], dtype=torch.int64)
    return Features(rows[: len(kept)], labels, tuple(tally.messages.values()), forward.engine)
