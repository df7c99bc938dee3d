"""What all masks hold, read once before the long work: classes, sizes, and what cannot be learnt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from PIL import Image
from torch import Tensor

from disco_zoo.errors import BadData
from disco_zoo.segmentation.data import IGNORED, MaskedSet


def check_masks(
    train: MaskedSet, test: MaskedSet, progress: Callable[[int, int], None] | None = None
) -> tuple[MaskedSet, MaskedSet, list[str]]:
    """Read every mask of both sets.

    Returns:
        The two sets with the names of their classes, which are numbers where nobody names them; and notes.

    Raises:
        BadData: an image and its mask differ in size, fewer than two classes, a number beyond the named classes, or a
            class of the test masks that the training masks do not have.
    """
    total, counts = len(train) + len(test), []
    for masked, first in ((train, 0), (test, len(train))):
        pixels = torch.zeros(IGNORED + 1, dtype=torch.int64)
        for index in range(len(masked)):
            pixels += _pixels(masked, index)
            if progress is not None:
                progress(first + index + 1, total)
        pixels[IGNORED] = 0
        counts.append(pixels)
    learnt, asked = (set(pixels.nonzero().flatten().tolist()) for pixels in counts)
    if len(learnt) < 2:
        raise BadData(f"the masks of {train.name} have {len(learnt)} class: at least two are needed. 255 is ignored.")
    if unseen := sorted(asked - learnt):
        raise BadData(f"the masks of {test.name} have class {unseen[0]}, which those of {train.name} do not.")
    names = train.class_names or test.class_names or tuple(map(str, range(max(learnt) + 1)))
    if max(learnt) >= len(names):
        raise BadData(f"the masks of {train.name} have class {max(learnt)}, but only {len(names)} classes have a name.")
    if test.class_names not in (None, names):
        raise BadData(f"{train.name} and {test.name} name their classes differently.")
    missing = [name for label, name in enumerate(names) if label not in asked]
    notes = [f"no pixel of {', '.join(missing[:5])} in {test.name}"] if missing else []
    return replace(train, class_names=names), replace(test, class_names=names), notes


def _pixels(masked: MaskedSet, index: int) -> Tensor:
    """Number of pixels of each class (256,)."""
    mask = masked.mask(index)
    image_path, mask_path = masked.pairs[index]
    try:
        with Image.open(image_path) as image:
            size = image.size
    except Exception as error:  # decoders of damaged bytes raise nearly anything
        raise BadData(f"{image_path} is unreadable: {str(error) or type(error).__name__}") from error
    if (size[1], size[0]) != tuple(mask.shape):
        raise BadData(f"{image_path} has {size[0]} × {size[1]} pixels, {mask_path} {mask.shape[1]} × {mask.shape[0]}.")
    if int(mask.min()) < 0 or int(mask.max()) > IGNORED:
        raise BadData(f"{mask_path} has values outside 0..255.")
    return torch.bincount(mask.flatten(), minlength=IGNORED + 1)
