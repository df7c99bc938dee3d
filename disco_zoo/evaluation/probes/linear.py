"""Linear probes: how well one linear layer on frozen features classifies (spec 4.1, 4.3, 4.4).

`linear_probe_on_features` solves the `fast` protocol on cached features. `linear_probe` runs any protocol
on a backbone and proves that the backbone did not change.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from disco_zoo.data.dataset import ImageSource, require_index, require_labels, require_same_classes
from disco_zoo.errors import BadData, DiscoZooError
from disco_zoo.evaluation.features import Features, Progress
from disco_zoo.evaluation.metrics import top1_top5
from disco_zoo.evaluation.probes.checkpoint import ProbeCheckpoint
from disco_zoo.evaluation.probes.crop_features import require_room
from disco_zoo.evaluation.probes.linear_sgd import FeatureTransform, train_linear_layers
from disco_zoo.evaluation.probes.logistic import choose_l2, fit_logistic_regression, logits, standardization
from disco_zoo.evaluation.probes.settings import LinearResult, ProbeSettings, from_epochs, probe_settings
from disco_zoo.models.encoder import backbone_fingerprint
from disco_zoo.models.engine import EngineName
from disco_zoo.protocols.linear import LinearProtocol, linear_protocol


def linear_probe_on_features(
    train: Features,
    test: Features,
    *,
    seed: int = 0,
    l2: float | None = None,
    in_place: bool = False,
) -> LinearResult:
    """The `fast` protocol: standardise, choose the L2 penalty on held-out training images, fit.

    Full-batch L-BFGS in float32 from zero, at most 100 iterations a fit: the same figures in every run. Test
    images choose nothing.

    Args:
        train, test: features with labels.
        seed: of the split that chooses the penalty.
        l2: the penalty itself; no choice is made then.
        in_place: standardise the features where they are, for which nobody has a use then: half the memory.

    Raises:
        BadData: no labels, a single class, or a class that the training images lack.
    """
    if train.labels is None or test.labels is None:
        raise BadData("A linear probe needs labels for both the training and the test images.")
    num_classes = check_classes(train.labels, test.labels)
    mean, std = standardization(train.features)
    standardized, tested = (
        (part.features.sub_(mean) if in_place else part.features - mean).div_(std) for part in (train, test)
    )
    start: Tensor | None = None
    tried: dict[float, float] = {}
    if l2 is None:
        l2, start, tried = choose_l2(standardized, train.labels, num_classes=num_classes, seed=seed)
    classifier = fit_logistic_regression(standardized, train.labels, num_classes=num_classes, l2=l2, start=start)
    top1, top5 = top1_top5(logits(tested, classifier), test.labels)
    settings = {
        "solver": "lbfgs",
        "feature_normalisation": "standardise",
        "l2": l2,
        "held_out_top1_by_l2": tried,
        "seed": seed,
        "num_train": len(train),
        "num_test": len(test),
    }
    return LinearResult("fast", top1, top1, top5, settings=settings, last_top5=top5, unreadable=test.unreadable)


def linear_probe(
    backbone: nn.Module,
    feature_dim: int,
    train_source: ImageSource,
    test_source: ImageSource,
    *,
    protocol: str | LinearProtocol = "disco",
    image_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    resize_size: int | None = None,
    batch_size: int = 256,
    epochs: int | None = None,
    base_lrs: Sequence[float] = (),
    seed: int = 0,
    device: torch.device | str = "cpu",
    workers: int = 0,
    progress: Progress | None = None,
    checkpoint: ProbeCheckpoint | None = None,
    engine: EngineName = "torch",
    crops: int | None = None,
) -> LinearResult:
    """Train one linear layer on the frozen backbone by a protocol.

    Args:
        backbone: maps normalised images (B, 3, S, S) to features (B, feature_dim); it stays in eval mode.
        protocol: one, or a name of `LINEAR_PROTOCOLS`. Figures of different protocols do not compare.
        image_size, resize_size: side of both views, and the shorter side before EVAL's crop, in pixels.
        batch_size: images a step; the learning rate is base_lr · batch_size / 256.
        epochs: instead of the protocol's, with milestones moved in proportion; `fast` has none.
        base_lrs: instead of the protocol's rate; of several the best on the test images is reported.
        seed: of the order, the crops and the layer's start.
        progress: called with (images done, images in total), over all epochs.
        checkpoint: keeps the state after each epoch of SGD.
        engine: what computes the features of `fast`, see `forward_by`; SGD sees new crops, by PyTorch.
        crops: K views of each image, whose features are kept and shown again; None for new ones in each epoch.

    Raises:
        BadData: no labels, a single class, or a class that the training images lack.
        UnknownName: there is no such protocol.
        TrainingDiverged: the loss of every rate is not finite.
        DiscoZooError: the backbone changed during the probe, so its figure would mean nothing.
    """
    preset = linear_protocol(protocol) if isinstance(protocol, str) else protocol
    check_probe_options(preset, epochs, base_lrs, crops)
    for source in (train_source, test_source):
        require_index(source, "a linear probe")
    require_same_classes(train_source, test_source)
    labels = [require_labels(source, "a linear probe") for source in (train_source, test_source)]
    check_classes(torch.tensor(labels[0]), torch.tensor(labels[1]), train_source.class_names)
    require_room(crops, len(train_source), feature_dim)
    settings = probe_settings(
        preset,
        image_size=image_size,
        resize_size=resize_size,
        mean=mean,
        std=std,
        batch_size=batch_size,
        epochs=epochs,
        seed=seed,
        device=device,
        workers=workers,
        engine=engine if preset.solver == "lbfgs" else "torch",
        crops=crops,
    )
    before = backbone_fingerprint(backbone)
    probe = _Probe(backbone, feature_dim, train_source, test_source, preset, settings, progress)
    if preset.solver == "lbfgs":
        result = probe.run_fast()
    else:
        result = probe.run_sgd(tuple(base_lrs) or (preset.base_lr,), checkpoint, before)
    if backbone_fingerprint(backbone) != before:
        raise DiscoZooError("The backbone changed during the linear probe: one of its tensors was written to.")
    return result


def check_probe_options(
    protocol: LinearProtocol, epochs: int | None, base_lrs: Sequence[float], crops: int | None = None
) -> None:
    """Refuse what a protocol cannot do.

    Raises:
        DiscoZooError: epochs, rates or crops for a protocol that has none, or no positive ones.
    """
    if crops is not None and (protocol.solver == "lbfgs" or crops < 1):
        raise DiscoZooError(f"The protocol {protocol.name} cannot use {crops} crops an image. Leave --crops out.")
    if epochs is not None and (protocol.solver == "lbfgs" or epochs < 1):
        raise DiscoZooError(f"The protocol {protocol.name} cannot run {epochs} epochs. Leave epochs out.")
    for rate in base_lrs:
        if protocol.solver == "lbfgs" or not 0 < rate < math.inf:
            raise DiscoZooError(f"The protocol {protocol.name} cannot use lr {rate:g}. Leave --lr out.")


def check_classes(train_labels: Tensor, test_labels: Tensor, class_names: Sequence[str] | None = None) -> int:
    """Return the number of classes, or refuse labels that a linear probe can learn nothing from.

    Raises:
        BadData: fewer than two classes, or a class that is in the test images alone.
    """
    train, test = set(train_labels.tolist()), set(test_labels.tolist())

    def named(labels: set[int]) -> str:
        return ", ".join(class_names[label] if class_names else str(label) for label in sorted(labels)[:5])

    if len(train) < 2:
        raise BadData(
            f"A linear probe needs two classes, the training images have {len(train)}: {named(train)}. "
            "Give images of another class too."
        )
    if test - train:
        raise BadData(f"Classes without training images: {named(test - train)}. Give some, or drop the test images.")
    return max(train) + 1


class _Probe:
    """A probe whose labels and options have been checked."""

    def __init__(
        self,
        backbone: nn.Module,
        feature_dim: int,
        train: ImageSource,
        test: ImageSource,
        protocol: LinearProtocol,
        settings: ProbeSettings,
        progress: Progress | None,
    ) -> None:
        self.backbone, self.feature_dim, self.train, self.test = backbone, feature_dim, train, test
        self.protocol, self.settings, self.progress = protocol, settings, progress

    def run_fast(self) -> LinearResult:
        """Cache the features of both sources and solve on them."""
        total = len(self.train) + len(self.test)
        train = self._features(self.train, 0, total)
        test = self._features(self.test, len(self.train), total)
        result = linear_probe_on_features(train, test, seed=self.settings.seed, in_place=True)
        return replace(result, settings=self._record() | result.settings | {"engine": train.engine})

    def run_sgd(
        self, base_lrs: tuple[float, ...], checkpoint: ProbeCheckpoint | None, fingerprint: str
    ) -> LinearResult:
        """Train by the paper's protocol; the best and the last epoch are kept apart."""
        needs_statistics = self.protocol.feature_normalisation == "l2_standardise"
        cached = len(self.test) + (len(self.train) if needs_statistics else 0)
        total = cached + self.settings.epochs * len(self.train)
        test = self._features(self.test, 0, total)
        transform = TRANSFORMS.get(self.protocol.feature_normalisation, _unchanged)
        if needs_statistics:
            transform = _l2_standardizer(self._features(self.train, len(self.test), total).features)
        record = self._record() | {"base_lrs": list(base_lrs)}
        kept = None if checkpoint is None else (checkpoint, self._key(record, fingerprint))
        report = self.progress
        by_lr = train_linear_layers(
            self.backbone,
            transform,
            self.train,
            require_labels(self.train, "a linear probe"),
            test,
            self.protocol,
            self.settings,
            base_lrs,
            lambda done: None if report is None else report(cached + done, total),
            kept,
        )
        whole = [number for number, scores in enumerate(by_lr) if len(scores) == self.settings.epochs]
        best = max(whole, key=lambda number: max(top1 for top1, _ in by_lr[number]))
        label = self.protocol.label(
            self.settings.epochs, base_lrs[best], base_lrs, self.settings.crops, self.settings.batch_size
        )
        sweep = {f"{lr:g}": tuple(top1 for top1, _ in scores) for lr, scores in zip(base_lrs, by_lr, strict=True)}
        return from_epochs(
            label,
            by_lr[best],
            record | {"base_lr": base_lrs[best]},
            top1_per_epoch_by_lr=sweep if len(sweep) > 1 else {},
            unreadable=test.unreadable,
        )

    def _features(self, source: ImageSource, first: int, total: int) -> Features:
        """EVAL features of a source, of the expected width."""
        features = self.settings.features(self.backbone, source, self.progress, first, total)
        width = features.features.shape[1]
        if width != self.feature_dim:
            raise DiscoZooError(
                f"The backbone gives {width} features, not {self.feature_dim}. Create it with num_classes=0."
            )
        return features

    def _record(self) -> dict[str, Any]:
        """All that fixes a probe, for `run.json`."""
        record = {f"protocol_{key}": value for key, value in asdict(self.protocol).items()}
        record |= asdict(self.settings) | {"device": str(self.settings.device)}
        return record | {"num_train": len(self.train), "num_test": len(self.test)}

    def _key(self, record: Mapping[str, Any], fingerprint: str) -> dict[str, Any]:
        """Values that must be equal for a probe to resume; workers and device may differ."""
        apart = ("workers", "device", "engine") if self.settings.crops else ("workers", "device", "engine", "crops")
        key = {name: value for name, value in record.items() if name not in apart}
        data = {"train_fingerprint": self.train.fingerprint(), "test_fingerprint": self.test.fingerprint()}
        return key | data | {"backbone": fingerprint}


def _unchanged(features: Tensor) -> Tensor:
    return features


TRANSFORMS: dict[str, FeatureTransform] = {"l2": F.normalize}


def _l2_standardizer(train: Tensor) -> FeatureTransform:
    """CompRess: unit length, then mean 0 and variance 1 in each dimension of the training features (N, D)."""
    variance, mean = torch.var_mean(F.normalize(train), dim=0, correction=0)
    std = torch.sqrt(variance + 1e-5)
    return lambda features: (F.normalize(features) - mean.to(features.device)) / std.to(features.device)
