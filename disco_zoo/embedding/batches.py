"""Embeddings of a frozen backbone, batch by batch, in one pass over the images."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from disco_zoo.core.loader import BoundedLoader, unchanged
from disco_zoo.data.dataset import ImageSource
from disco_zoo.data.source_image import SourceImage
from disco_zoo.embedding.facts import EmbeddingFacts
from disco_zoo.errors import DiscoZooError, UnreadableImage
from disco_zoo.models.encoder import frozen
from disco_zoo.models.forward import Forward
from disco_zoo.models.load import NamedModel
from disco_zoo.transforms.eval import embed_transform, normalize

_Item = tuple[Tensor | None, int, str, bool]


@dataclass(frozen=True)
class Batch:
    """Rows (b, D) of the images `indices`, of which `reduced` were decoded at reduced size; why others have none."""

    rows: Tensor
    indices: list[int]
    unreadable: dict[int, str]
    reduced: int


class _Images(Dataset[_Item]):
    def __init__(self, source: ImageSource, transform: Callable[[SourceImage], Tensor]) -> None:
        self.source, self.transform = source, transform

    def __getitem__(self, index: int) -> _Item:
        try:
            image = self.source.opened(index)
            return self.transform(image), index, "", image.was_reduced
        except UnreadableImage as error:
            return None, index, str(error), False


def embedded_batches(
    named: NamedModel,
    source: ImageSource,
    facts: EmbeddingFacts,
    batches: Sequence[Sequence[int]],
    *,
    device: torch.device | str = "cpu",
    workers: int = 0,
    forward: Forward | None = None,
) -> Iterator[Batch]:
    """Embed `batches` of image numbers under the facts' input size, normalisation and number type.

    A row depends on its own batch alone, so a resumed pass over the rest gives the same bits.

    Args:
        forward: computes the features; None for PyTorch.

    Raises:
        DiscoZooError: the backbone gives no vectors, or some that are not finite or do not fit half precision.
    """
    transform = embed_transform(facts.image_size, facts.resize_size, full_decode=facts.decode == "full")
    loader = BoundedLoader(
        _Images(source, transform),
        batch_sampler=[list(batch) for batch in batches],
        workers=workers,
        collate=unchanged,
    )
    forward = forward or Forward(named.backbone, facts.image_size)

    def read() -> Iterator[tuple[Tensor | None, list[_Item]]]:
        for items in loader:
            images = [image for image, *_ in items if image is not None]
            views = None
            if images:
                views = normalize(torch.stack(images).to(device), facts.mean, facts.std, layout=forward.layout)
            yield views, items

    with frozen(named.backbone, device), contextlib.closing(forward.stream(read())) as computed:
        for rows, items in computed:
            indices = [index for image, index, *_ in items if image is not None]
            messages = {index: message for image, index, message, _ in items if image is None}
            finished = torch.empty(0, 0) if rows is None else _finish(rows, facts)
            yield Batch(finished, indices, messages, sum(reduced for *_, reduced in items))


def _finish(rows: Tensor, facts: EmbeddingFacts) -> Tensor:
    if facts.normalised:
        rows = F.normalize(rows, dim=1)
    if facts.number_type == "float32":
        return rows
    rows = rows.half()
    if not torch.isfinite(rows).all():
        raise DiscoZooError("The features are too large for half precision. Leave out --half, or add --normalise")
    return rows
