"""Linear probes: how well one linear layer on frozen features classifies (`methods.md` 4.1).

`linear_probe_on_features` solves the `fast` protocol on cached features. `linear_probe` runs any protocol
on a backbone and proves that the backbone did not change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from disco_zoo.datasets import ImageSource, require_index, require_labels, require_same_classes
from disco_zoo.errors import BadData, DiscoZooError
from disco_zoo.evaluate.features import (
    Features,
    Progress,
    backbone_fingerprint,
    eval_resize_size,
    extract_features,
)
from disco_zoo.evaluate.linear_protocols import IMAGENET_STD, LinearProtocol, linear_protocol
from disco_zoo.evaluate.linear_sgd import FeatureTransform, ProbeSettings, top1_top5, train_linear_layer
from disco_zoo.evaluate.logistic import L2_GRID, choose_l2, fit_logistic_regression, logits, standardisation


@dataclass(frozen=True)
class LinearResult:
    """What a linear probe found; accuracies in percent.

    Attributes:
        protocol: name of the protocol, and the number of epochs when it is not the paper's (`disco@10ep`).
        top1: the reported figure: the papers' best epoch on the test images, slightly optimistic.
        last_top1: of the last epoch; the same as `top1` for `fast`, which has no epochs.
        top5: in the epoch of `top1`; None with five classes or fewer.
        best_epoch: epoch of `top1`, from 1; None for `fast`.
        top1_per_epoch: one figure an epoch.
        settings: everything that fixes the probe, ready for JSON.
    """

    protocol: str
    top1: float
    last_top1: float
    top5: float | None
    best_epoch: int | None = None
    top1_per_epoch: tuple[float, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)


def linear_probe_on_features(
    train: Features,
    test: Features,
    *,
    seed: int = 0,
    l2: float | None = None,
    grid: Sequence[float] = L2_GRID,
) -> LinearResult:
    """The `fast` protocol: standardise, choose the L2 penalty on held-out training images, fit.

    Full-batch L-BFGS in float32 from zero, at most 100 iterations a fit: the same figures in every run. Test
    images choose nothing.

    Args:
        train, test: features with labels.
        seed: of the split that chooses the penalty.
        l2: the penalty itself; no choice is made then.
        grid: penalties to choose from.

    Raises:
        BadData: no labels, a single class, or a class that one of the two lacks.
    """
    if train.labels is None or test.labels is None:
        raise BadData("A linear probe needs labels for both the training and the test images.")
    num_classes = check_classes(train.labels, test.labels)
    mean, std = standardisation(train.features)
    standardised = (train.features - mean) / std
    start: Tensor | None = None
    tried: dict[float, float] = {}
    if l2 is None:
        l2, start, tried = choose_l2(standardised, train.labels, num_classes=num_classes, seed=seed, grid=grid)
    classifier = fit_logistic_regression(standardised, train.labels, num_classes=num_classes, l2=l2, start=start)
    top1, top5 = top1_top5(logits((test.features - mean) / std, classifier), test.labels)
    settings = {
        "solver": "lbfgs",
        "feature_normalisation": "standardise",
        "l2": l2,
        "held_out_top1_by_l2": tried,
        "seed": seed,
        "num_train": len(train),
        "num_test": len(test),
    }
    return LinearResult("fast", top1, top1, top5, settings=settings)


def linear_probe(
    backbone: nn.Module,
    feature_dim: int,
    train_source: ImageSource,
    test_source: ImageSource,
    *,
    protocol: str = "disco",
    image_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    resize_size: int | None = None,
    batch_size: int = 256,
    epochs: int | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    workers: int = 0,
    progress: Progress | None = None,
) -> LinearResult:
    """Train one linear layer on the frozen backbone by a protocol of `LINEAR_PROTOCOLS`.

    Args:
        backbone: maps normalised images (B, 3, S, S) to features (B, feature_dim); it stays in eval mode.
        protocol: name of the protocol. Figures of different protocols do not compare.
        image_size, resize_size: side of both views, and the shorter side before EVAL's crop, in pixels.
        batch_size: images a step; the learning rate is base_lr · batch_size / 256.
        epochs: instead of the protocol's, with milestones moved in proportion; `fast` has none.
        seed: of the order, the crops and the layer's start.
        progress: called with (images done, images in total), over all epochs.

    Raises:
        BadData: no labels, a single class, or a class that one of the two sources lacks.
        UnknownName: there is no such protocol.
        TrainingDiverged: the loss is not finite.
        DiscoZooError: the backbone changed during the probe, so its figure would mean nothing.
    """
    preset = linear_protocol(protocol)
    for source in (train_source, test_source):
        require_index(source, "a linear probe")
    require_same_classes(train_source, test_source)
    labels = [require_labels(source, "a linear probe") for source in (train_source, test_source)]
    check_classes(torch.tensor(labels[0]), torch.tensor(labels[1]), train_source.class_names)
    if epochs is not None and (preset.solver == "lbfgs" or epochs < 1):
        raise DiscoZooError(f"The protocol {protocol} cannot run {epochs} epochs. Leave epochs out.")
    settings = ProbeSettings(
        image_size=image_size,
        resize_size=eval_resize_size(image_size) if resize_size is None else resize_size,
        mean=tuple(mean),
        std=preset.imagenet_std if tuple(std) == IMAGENET_STD else tuple(std),
        batch_size=batch_size,
        epochs=epochs or preset.epochs,
        seed=seed,
        device=device,
        workers=workers,
    )
    before = backbone_fingerprint(backbone)
    run = _run_fast if preset.solver == "lbfgs" else _run_sgd
    result = run(backbone, feature_dim, train_source, test_source, preset, settings, progress)
    if backbone_fingerprint(backbone) != before:
        raise DiscoZooError("The backbone changed during the linear probe: one of its tensors was written to.")
    return result


def check_classes(train_labels: Tensor, test_labels: Tensor, class_names: Sequence[str] | None = None) -> int:
    """Return the number of classes, or refuse labels that a linear probe can learn nothing from.

    Raises:
        BadData: fewer than two classes, or a class that is only in the training or only in the test images.
    """
    train, test = set(train_labels.tolist()), set(test_labels.tolist())

    def named(labels: set[int]) -> str:
        return ", ".join(class_names[label] if class_names else str(label) for label in sorted(labels)[:5])

    if len(train) < 2:
        raise BadData(f"A linear probe needs two classes, the training images have {len(train)}: {named(train)}.")
    if train - test:
        raise BadData(f"Classes without test images: {named(train - test)}. Give test images of each class.")
    if test - train:
        raise BadData(f"Classes without training images: {named(test - train)}. Give some, or drop the test images.")
    return max(train) + 1


def _run_fast(
    backbone: nn.Module,
    feature_dim: int,
    train_source: ImageSource,
    test_source: ImageSource,
    protocol: LinearProtocol,
    settings: ProbeSettings,
    progress: Progress | None,
) -> LinearResult:
    """Cache the features of both sources and solve on them."""
    total = len(train_source) + len(test_source)
    train = _features(backbone, train_source, feature_dim, settings, progress, 0, total)
    test = _features(backbone, test_source, feature_dim, settings, progress, len(train_source), total)
    result = linear_probe_on_features(train, test, seed=settings.seed)
    return replace(result, settings=_record(protocol, settings, train_source, test_source) | result.settings)


def _run_sgd(
    backbone: nn.Module,
    feature_dim: int,
    train_source: ImageSource,
    test_source: ImageSource,
    protocol: LinearProtocol,
    settings: ProbeSettings,
    progress: Progress | None,
) -> LinearResult:
    """Train by the paper's protocol; the best and the last epoch are kept apart."""
    needs_statistics = protocol.feature_normalisation == "l2_standardise"
    cached = len(test_source) + (len(train_source) if needs_statistics else 0)
    total = cached + settings.epochs * len(train_source)
    test = _features(backbone, test_source, feature_dim, settings, progress, 0, total)
    transform: FeatureTransform = _unchanged
    if needs_statistics:
        train = _features(backbone, train_source, feature_dim, settings, progress, len(test_source), total)
        transform = _l2_standardiser(train.features)
    per_epoch = train_linear_layer(
        backbone,
        transform,
        train_source,
        require_labels(train_source, "a linear probe"),
        test,
        protocol,
        settings,
        lambda done: None if progress is None else progress(cached + done, total),
    )
    top1_per_epoch = tuple(top1 for top1, _ in per_epoch)
    best = max(range(len(per_epoch)), key=lambda epoch: top1_per_epoch[epoch])
    return LinearResult(
        protocol.label(settings.epochs),
        top1=top1_per_epoch[best],
        last_top1=top1_per_epoch[-1],
        top5=per_epoch[best][1],
        best_epoch=best + 1,
        top1_per_epoch=top1_per_epoch,
        settings=_record(protocol, settings, train_source, test_source),
    )


def _features(
    backbone: nn.Module,
    source: ImageSource,
    feature_dim: int,
    settings: ProbeSettings,
    progress: Progress | None,
    offset: int,
    total: int,
) -> Features:
    """EVAL features of a source, of the expected width; progress counts on from `offset`."""
    features = extract_features(
        backbone,
        source,
        image_size=settings.image_size,
        resize_size=settings.resize_size,
        mean=settings.mean,
        std=settings.std,
        batch_size=settings.batch_size,
        device=settings.device,
        workers=settings.workers,
        progress=None if progress is None else lambda done, _: progress(offset + done, total),
    )
    width = features.features.shape[1]
    if width != feature_dim:
        raise DiscoZooError(f"The backbone gives {width} features, not {feature_dim}. Create it with num_classes=0.")
    return features


def _unchanged(features: Tensor) -> Tensor:
    return features


def _l2_standardiser(train: Tensor) -> FeatureTransform:
    """CompRess: unit length, then mean 0 and variance 1 in each dimension of the training features (N, D)."""
    variance, mean = torch.var_mean(F.normalize(train), dim=0, correction=0)
    std = torch.sqrt(variance + 1e-5)
    return lambda features: (F.normalize(features) - mean.to(features.device)) / std.to(features.device)


def _record(
    protocol: LinearProtocol, settings: ProbeSettings, train_source: ImageSource, test_source: ImageSource
) -> dict[str, Any]:
    """All that fixes a probe, for `run.json`."""
    record = {f"protocol_{key}": value for key, value in asdict(protocol).items()}
    record |= asdict(settings) | {"device": str(settings.device)}
    return record | {"num_train": len(train_source), "num_test": len(test_source)}
