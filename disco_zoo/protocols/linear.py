"""The linear-probe protocols of the papers, and `fast` for cached features.

For the data that a model is pretrained on (spec 4.1), with few labels (4.3), and for other data (4.4).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from disco_zoo.errors import UnknownName, did_you_mean

if TYPE_CHECKING:  # recipes are checked without torch
    from torch import nn

    from disco_zoo.core.schema import Interpolation

IMAGENET_STD = (0.229, 0.224, 0.225)
DEFAULT_BATCH_SIZE = 256


def milestones_passed(milestones: Sequence[int], length: int, epoch: int, epochs: int) -> int:
    """How many milestones of a probe of `length` epochs lie behind `epoch` (from 0), where it runs for `epochs`."""
    # In whole numbers: 25 · (28 / 100) is a little more than 7.
    return bisect_right([milestone * epochs for milestone in milestones], epoch * length)


def probe_name(name: str, length: int, epochs: int | None, crops: int | None, batch_size: int) -> str:
    """A protocol's name with what is not the usual: `disco@10ep`, `disco@8crops`, `swav@10ep@batch64`.

    Args:
        length: epochs of the protocol; 0 where it takes no steps.
    """
    epochs = length if epochs is None else epochs
    changed = {
        f"@{epochs}ep": epochs != length,
        f"@{crops}crops": crops is not None and crops < (epochs or length),
        f"@batch{batch_size}": batch_size != DEFAULT_BATCH_SIZE and length > 0,
    }
    return name + "".join(word for word, is_changed in changed.items() if is_changed)


@dataclass(frozen=True)
class LinearProtocol:
    """How a linear classifier is trained on a frozen backbone.

    Attributes:
        source: which code or paper it follows.
        solver: "sgd" on augmented images, or "lbfgs" to the optimum on cached features.
        epochs: passes over the training images; 0 for lbfgs.
        base_lr: learning rate for a batch of 256; it grows in proportion to the batch.
        schedule: how the rate falls from epoch to epoch.
        milestones: epochs (from 0) at which "step" multiplies the rate by `gamma`.
        min_lr: where "cosine" ends, for a batch of 256.
        warmup_epochs: SEED's warm-up, from `base_lr` itself to the rate scaled by the batch (Q10).
        train_view: "plain" is A-plain: crop of `crop_scale` of the area, flip; "eval" is EVAL.
        crop_scale: smallest and largest share of the area that a crop has.
        interpolation: of training and test images.
        image_size: side of the views in pixels, and the whole image is brought to it for testing; None for the
            model's own sizes.
        feature_normalisation: "none"; "l2": unit length; "standardise" (mean 0, deviation 1 over the training images);
            or "l2_standardise": unit length, then standardised with ε = 1e-5, from EVAL images (CompRess).
        imagenet_std: stands in for the std of a backbone that was given ImageNet's (SwAV writes .228, Q24).
    """

    name: str
    source: str
    epochs: int
    base_lr: float
    schedule: Literal["constant", "step", "cosine"]
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    min_lr: float = 0.0
    warmup_epochs: int = 0
    weight_decay: float = 0.0
    momentum: float = 0.9
    train_view: Literal["plain", "eval"] = "plain"
    crop_scale: tuple[float, float] = (0.08, 1.0)
    interpolation: Interpolation = "bilinear"
    image_size: int | None = None
    feature_normalisation: Literal["none", "l2", "standardise", "l2_standardise"] = "none"
    imagenet_std: tuple[float, float, float] = IMAGENET_STD
    solver: Literal["sgd", "lbfgs"] = "sgd"

    def lr(
        self, epoch: int, *, batch_size: int = 256, epochs: int | None = None, base_lr: float | None = None
    ) -> float:
        """Learning rate of `epoch` (from 0).

        Args:
            epochs: length of a shortened or prolonged probe; milestones and warm-up move in proportion.
            base_lr: instead of the protocol's; where "cosine" ends moves in proportion.
        """
        if base_lr is not None:
            ratio = base_lr / self.base_lr
            return ratio * self.lr(epoch, batch_size=batch_size, epochs=epochs)
        scale = batch_size / 256
        stretch = 1.0 if epochs is None else epochs / self.epochs
        if epoch < self.warmup_epochs * stretch:
            return self.base_lr * (1 + (scale - 1) * epoch / (self.warmup_epochs * stretch))
        if self.schedule == "step":
            passed = milestones_passed(self.milestones, self.epochs, epoch, self.epochs if epochs is None else epochs)
            return scale * self.base_lr * self.gamma**passed
        if self.schedule == "cosine":
            cosine = 0.5 * (1 + math.cos(math.pi * epoch / (self.epochs * stretch)))
            return scale * (self.min_lr + (self.base_lr - self.min_lr) * cosine)
        return scale * self.base_lr

    def label(
        self,
        epochs: int | None = None,
        lr: float | None = None,
        sweep: Sequence[float] = (),
        crops: int | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
    ) -> str:
        """The name to report, with what is not the usual: `disco`, `disco@10ep`, `disco@8crops`, `disco@batch64@lr30`.

        Args:
            crops: views of each image, where epochs share them.
            lr: base rate of the figure.
            sweep: all rates that were tried; with several the figure is that of the best on the test images.
        """
        name = probe_name(self.name, self.epochs, epochs, crops, batch_size)
        if len(sweep) > 1:
            return f"{name}@lr{lr:g} (best of {', '.join(f'{rate:g}' for rate in sweep)} on test images)"
        return name if lr in (None, self.base_lr) else f"{name}@lr{lr:g}"


_DISCO_MILESTONES = (5, 10, 15, 20, 25, 30, 35, 40, 45, 60, 80)
_FAST = LinearProtocol(
    "fast",
    "ours: logistic regression to its optimum, L2 penalty chosen on held-out training images",
    0,
    0.0,
    "constant",
    train_view="eval",
    feature_normalisation="standardise",
    solver="lbfgs",
)


def _by_name(*protocols: LinearProtocol) -> dict[str, LinearProtocol]:
    return {protocol.name: protocol for protocol in protocols}


LINEAR_PROTOCOLS = _by_name(
    LinearProtocol("moco", "MoCo code", 100, 30.0, "step", milestones=(60, 80)),
    LinearProtocol("disco", "DisCo code", 100, 3.0, "step", milestones=_DISCO_MILESTONES, gamma=0.5),
    LinearProtocol("seed", "SEED code", 100, 30.0, "step", milestones=(60, 80), warmup_epochs=5),
    LinearProtocol("bingo_r", "BINGO code, ResNet-18", 120, 30.0, "cosine", min_lr=0.01),
    LinearProtocol("bingo_eff", "BINGO code, EfficientNet-B0", 120, 3.0, "cosine", min_lr=0.001),
    LinearProtocol(
        "compress",
        "CompRess code",
        40,
        0.01,
        "step",
        milestones=(15, 30, 40),
        weight_decay=1e-4,
        feature_normalisation="l2_standardise",
    ),
    LinearProtocol(
        "swav",
        "SwAV and DisCo+SwAV code",
        100,
        0.3,
        "cosine",
        weight_decay=1e-6,
        imagenet_std=(0.228, 0.224, 0.225),
    ),
    LinearProtocol("ssl_small", "ssl-small code", 100, 30.0, "step", milestones=(60, 80)),
    _FAST,
)

# A linear layer on frozen features with part of the labels; fine-tuning is in finetune.py.
SEMI_PROTOCOLS = _by_name(
    LinearProtocol("disco", "DisCo code", 100, 3.0, "step", milestones=(60, 80), gamma=0.5), _FAST
)

TRANSFER_PROTOCOLS = _by_name(
    LinearProtocol("disco", "DisCo code", 200, 3.0, "constant", interpolation="bicubic", image_size=224),
    LinearProtocol(
        "ssl_small",
        "ssl-small code",
        100,
        30.0,
        "step",
        milestones=(60, 80),
        crop_scale=(0.6, 1.0),
        interpolation="bicubic",
        image_size=224,
        feature_normalisation="l2",
    ),
    _FAST,
)


def linear_protocol(name: str, protocols: Mapping[str, LinearProtocol] = LINEAR_PROTOCOLS) -> LinearProtocol:
    """Find a preset by its name.

    Raises:
        UnknownName: there is none of this name.
    """
    if name not in protocols:
        raise UnknownName(f"No such protocol: '{name}'.{did_you_mean(name, protocols)} Known: {', '.join(protocols)}.")
    return protocols[name]


def bingo_protocol(backbone: nn.Module) -> str:
    """BINGO's probe for this network: it has one for ResNets and one for EfficientNets."""
    from timm.models import ResNet

    return "bingo_r" if isinstance(backbone, ResNet) else "bingo_eff"
