"""Fine-tuning all of a network on labelled images, as the papers evaluate it (spec 4.3 and 4.4).

These are measurements; for a classifier to use, `disco-zoo finetune` has the better recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from disco_zoo.core.schema import Interpolation
from disco_zoo.errors import DiscoZooError, UnknownName, did_you_mean
from disco_zoo.protocols.linear import DEFAULT_BATCH_SIZE, IMAGENET_STD, milestones_passed, probe_name

FEW_LABELS = 0.05  # SwAV has one pair of rates for 1 % of the labels and one for 10 %; this lies between


@dataclass(frozen=True)
class FinetuneProtocol:
    """SGD with momentum 0.9 on backbone and classifier, each with a rate of its own.

    Attributes:
        source: which code or paper it follows.
        epochs: passes over the training images.
        milestones: epochs (from 0) at which both rates are multiplied by `gamma`.
        rates: (backbone, classifier) for a batch of 256, with 10 % of the labels or more; None where the user has to
            say.
        few_label_rates: the same with less than `FEW_LABELS` of them.
        crop_scale: smallest and largest share of the area that a training crop has.
        image_size: see `LinearProtocol`.
        unit_features: the classifier works on features of unit length.
        imagenet_std: see `LinearProtocol`.
    """

    name: str
    source: str
    epochs: int
    milestones: tuple[int, ...]
    gamma: float
    rates: tuple[float, float] | None
    few_label_rates: tuple[float, float] | None = None
    crop_scale: tuple[float, float] = (0.08, 1.0)
    interpolation: Interpolation = "bilinear"
    image_size: int | None = None
    unit_features: bool = False
    imagenet_std: tuple[float, float, float] = IMAGENET_STD
    momentum: float = 0.9
    weight_decay: float = 0.0

    def start_rates(self, share: float, lr: float | None) -> tuple[float, float]:
        """Rates of (backbone, classifier) for a batch of 256.

        Args:
            share: part of the labels that is used, from 0 to 1.
            lr: one rate for both, instead of the protocol's.

        Raises:
            DiscoZooError: the protocol states none and `lr` is missing.
        """
        if lr is not None:
            return lr, lr
        rates = self.few_label_rates if share < FEW_LABELS and self.few_label_rates else self.rates
        if rates is None:
            raise DiscoZooError(f"The code of {self.name} states no rate for fine-tuning. Give one, e.g. --lr 0.01")
        return rates

    def label(self, epochs: int, lr: float | None = None, batch_size: int = DEFAULT_BATCH_SIZE) -> str:
        """The name to report, with what is not the usual: `swav@10ep@batch64@lr0.1`."""
        name = probe_name(self.name, self.epochs, epochs, None, batch_size)
        return name if lr is None else f"{name}@lr{lr:g}"

    def decay(self, epoch: int, epochs: int) -> float:
        """Factor of the learning rates in `epoch` (from 0) of `epochs`; milestones move in proportion."""
        return self.gamma ** milestones_passed(self.milestones, self.epochs, epoch, epochs)


SEMI_FINETUNE_PROTOCOLS = {
    "swav": FinetuneProtocol(
        "swav",
        "SwAV code",
        20,
        (12, 16),
        0.2,
        rates=(0.01, 0.2),
        few_label_rates=(0.02, 5.0),
        imagenet_std=(0.228, 0.224, 0.225),
    )
}

TRANSFER_FINETUNE_PROTOCOLS = {
    "ssl_small": FinetuneProtocol(
        "ssl_small",
        "ssl-small code",
        100,
        (60, 80),
        0.1,
        rates=None,
        crop_scale=(0.2, 1.0),
        interpolation="bicubic",
        image_size=224,
        unit_features=True,
    )
}


def finetune_protocol(name: str, protocols: Mapping[str, FinetuneProtocol]) -> FinetuneProtocol:
    """Find a preset by its name.

    Raises:
        UnknownName: there is none of this name.
    """
    if name not in protocols:
        known = ", ".join(protocols)
        raise UnknownName(f"No such fine-tuning protocol: '{name}'.{did_you_mean(name, protocols)} Known: {known}.")
    return protocols[name]
