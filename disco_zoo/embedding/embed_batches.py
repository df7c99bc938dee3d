"""Rows of images that another program holds, batch by batch: Ray Data, Spark, a server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from disco_zoo.core.launcher import chosen_device
from disco_zoo.data.pixels.bit_depth import ValueRanges
from disco_zoo.data.source_image import SourceImage
from disco_zoo.errors import BadData, first_line
from disco_zoo.evaluation.subject import fit_to
from disco_zoo.models.encoder import frozen
from disco_zoo.models.engine import EngineName, forward_by
from disco_zoo.models.load import NamedModel, load_model
from disco_zoo.transforms.eval import embed_transform, eval_resize_size, normalize


def embed_batches(
    batches: Iterable[Sequence[bytes | Image.Image]],
    model: NamedModel | str,
    *,
    image_size: int | None = None,
    device: str = "auto",
    engine: EngineName = "torch",
    full_decode: bool = False,
    white: Mapping[str, float] | None = None,
) -> Iterator[np.ndarray]:
    """Features float32 (b, D) of each batch of b images, as they come: the rows that `embed` writes.

    One batch is in memory at a time. Give one call as many batches as you have: an engine is opened, and compared with
    PyTorch, once a call.

    Args:
        batches: the bytes of image files, or opened images; at least one a batch.
        model: what `load_model` gives, or a name for it.
        image_size: side of the centre crop in pixels; None for the model's.
        engine: see `extract_features`.
        full_decode: see `embed`.
        white: what is white in images of more than 8 bits, as in the `facts.white` of `embed`'s file, such as
            {"I;16": 4095}; of kinds that are not there each image tells alone. None refuses such images.

    Raises:
        UnknownName, WeightsError: the model cannot be had.
        BadData: an image cannot be read, or has more than 8 bits without `white`; the message has its batch and place
            in it, from 0.
    """
    named = load_model(model) if isinstance(model, str) else model
    size, resize = (named.image_size, named.resize_size) if image_size is None else (image_size, None)
    fit_to(named.backbone, size, named.name)
    device = chosen_device(device)
    transform = embed_transform(size, resize or eval_resize_size(size), full_decode=full_decode)
    forward = forward_by(named.backbone, size, engine=engine, device=device)
    for number, batch in enumerate(batches):
        views = torch.stack([_view(transform, image, white, number, place) for place, image in enumerate(batch)])
        with frozen(named.backbone, device):  # not while the caller is at work: it may train something
            rows = forward(normalize(views.to(device), named.mean, named.std, layout=forward.layout))
        yield rows.numpy()


def _view(
    transform: Callable[[SourceImage], Tensor],
    image: bytes | Image.Image,
    white: Mapping[str, float] | None,
    batch: int,
    place: int,
) -> Tensor:
    try:
        seen = SourceImage(image, ranges=lambda: ValueRanges(white or {}))
        if white is not None or not seen.is_deep:
            return transform(seen)
    except Exception as error:  # decoders of damaged bytes raise nearly anything
        raise BadData(f"image {place} of batch {batch} is unreadable: {first_line(error)}") from error
    raise BadData(
        f"image {place} of batch {batch} has more than 8 bits, and alone it does not tell what is white. "
        'Give the facts.white of an embedding of such images, or what you know: white={"I;16": 65535}'
    )
