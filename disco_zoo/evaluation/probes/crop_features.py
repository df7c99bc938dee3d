"""Features of the training views of a probe by SGD: of new views in each epoch, or of K views of each image, kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from disco_zoo.core.process import available_bytes
from disco_zoo.errors import DiscoZooError
from disco_zoo.evaluation.probes.batches import ProbeBatches
from disco_zoo.networks.input_size import GIB

Batch = tuple[Tensor, Tensor]


class CropFeatures:
    """The batches of any epoch as features (B, D) and labels int64 (B,).

    With K crops the views of the first K epochs are all there are. Their features are kept, and epoch e shows those of
    epoch e mod K again, in an order of its own: the backbone runs K times over the images, whatever the epochs.

    Args:
        compute: features of uint8 views (B, 3, S, S).
        crops: K; None draws new views in each epoch and keeps nothing.
    """

    def __init__(self, batches: ProbeBatches, compute: Callable[[Tensor], Tensor], crops: int | None) -> None:
        self.batches, self.compute, self.crops = batches, compute, crops
        self._kept: dict[int, Batch] = {}

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch (from 0), fixed by (seed, epoch), also where a probe goes on with it.

        Raises:
            BadData: too many images cannot be read.
        """
        if self.crops is None:
            yield from ((self.compute(images), labels) for images, labels in self.batches.epoch(epoch))
            return
        draw = epoch % self.crops
        if draw == epoch and draw not in self._kept:
            yield from self._computed(draw)
            return
        if draw not in self._kept:  # of a probe that goes on
            for _ in self._computed(draw):
                pass
        features, labels = self._kept[draw]
        for rows in self.batches.order(epoch).split(self.batches.batch_size):
            yield features[rows], labels[rows]

    def _computed(self, draw: int) -> Iterator[Batch]:
        """The batches of epoch `draw`; at its end they are kept, by image."""
        order, features, first = self.batches.order(draw), torch.empty(0), 0
        labels = torch.empty(len(order), dtype=torch.int64)
        for images, found in self.batches.epoch(draw):
            computed = self.compute(images).cpu()
            if not first:
                features = torch.empty(len(order), computed.shape[1])
            rows = order[first : first + len(found)]
            features[rows], labels[rows] = computed, found
            first += len(found)
            yield computed, found
        self._kept[draw] = features, labels


def require_room(crops: int | None, num_images: int, width: int) -> None:
    """Refuse to keep more features than memory holds.

    Raises:
        DiscoZooError: the message says how many crops it holds.
    """
    needed, free = 4 * num_images * width, available_bytes()
    if crops is None or free is None or crops * needed <= free:
        return
    instead = f"--crops {free // needed}" if free >= needed else "the command without --crops"
    raise DiscoZooError(
        f"{crops} crops of {num_images} images keep {crops * needed / GIB:.1f} GiB of features, and {free / GIB:.1f} "
        f"GiB are free. Type: {instead}"
    )
