"""What int8 costs: kNN accuracy before and after where there are labels, and how far features turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional as F

from disco_zoo.datasets import ImageSource
from disco_zoo.errors import DiscoZooError
from disco_zoo.evaluate.features import Features, extract_features
from disco_zoo.evaluate.knn import knn_top1
from disco_zoo.export.onnx_file import OnnxBackbone
from disco_zoo.export.subject import Subject
from disco_zoo.progress import StepProgress
from disco_zoo.randomness import stream_generator


@dataclass(frozen=True)
class Int8Loss:
    """Features of int8 beside those of float32, of the same images.

    Attributes:
        mean_cosine, lowest_cosine: between the two features of a test image.
        knn_top1: kNN top-1 in percent, (float32, int8); None without labels.
        k: of the kNN.
        num_train, num_test: images.
    """

    mean_cosine: float
    lowest_cosine: float
    knn_top1: tuple[float, float] | None
    k: int
    num_train: int
    num_test: int

    def describe(self) -> str:
        turned = f"cosine to float32 {self.mean_cosine:.4f} on average, {self.lowest_cosine:.4f} at worst"
        if self.knn_top1 is None:
            return f"{turned}, over {self.num_test} images"
        full, small = self.knn_top1
        return (
            f"kNN (k={self.k}) top-1 {full:.2f} % in float32, {small:.2f} % in int8 ({small - full:+.2f}), "
            f"{self.num_train} training and {self.num_test} test images; {turned}"
        )


def some_of(source: ImageSource, number: int | None, skip: Sequence[int] = ()) -> list[int]:
    """At most `number` images, a fixed random choice, without those in `skip` where enough are left."""
    order = torch.randperm(len(source), generator=stream_generator("export_images", 0)).tolist()
    skipped = set(skip)
    left = [index for index in order if index not in skipped] or order
    return sorted(left[:number])


def int8_loss(
    subject: Subject,
    small: Path,
    test: ImageSource,
    test_indices: Sequence[int],
    train: ImageSource | None = None,
    train_indices: Sequence[int] = (),
    *,
    k: int = 20,
    workers: int = 0,
) -> Int8Loss:
    """Measure an int8 file against the PyTorch network that it came from.

    Args:
        small: the int8 ONNX file.
        test: the images compared; with labels on it and on `train`, kNN is measured too.
        train: the bank of the kNN.

    Raises:
        BadData: too many images cannot be read.
    """
    other = OnnxBackbone(small, subject.takes_pixels)
    parts = [(test, test_indices)] + ([(train, train_indices)] if train is not None else [])
    full: list[Features] = []
    quantised: list[Features] = []
    total = 2 * sum(len(indices) for _, indices in parts)
    with StepProgress("float32 against int8", total) as progress:
        for found, network in ((full, subject.named.backbone), (quantised, other)):
            for source, indices in parts:
                begun = progress.done
                found.append(_features(network, subject, source, indices, workers, progress, begun))
    cosines = F.cosine_similarity(full[0].features.double(), quantised[0].features.double())
    if not torch.isfinite(cosines).all():
        raise DiscoZooError(f"{small} gives features that are not finite")
    labels = [part.labels for part in full]
    top1: tuple[float, float] | None = None
    if train is not None and labels[0] is not None and labels[1] is not None:
        k = min(k, len(full[1]))
        top1 = _knn(full, k), _knn(quantised, k)
    num_train = len(full[1]) if top1 is not None else 0
    return Int8Loss(cosines.mean().item(), cosines.min().item(), top1, k, num_train, len(full[0]))


def _features(
    network: torch.nn.Module,
    subject: Subject,
    source: ImageSource,
    indices: Sequence[int],
    workers: int,
    progress: StepProgress,
    begun: int,
) -> Features:
    # A file that takes pixels gets them unnormalised; the wrapper turns 0..1 back into 0..255.
    plain = subject.takes_pixels and isinstance(network, OnnxBackbone)
    mean, std = ((0.0,) * 3, (1.0,) * 3) if plain else (subject.named.mean, subject.named.std)
    return extract_features(
        network, source, image_size=subject.image_size, resize_size=subject.resize_size, mean=mean, std=std,
        batch_size=64, workers=workers, indices=indices, progress=progress.part(begun),
    )  # fmt: skip


def _knn(features: list[Features], k: int) -> float:
    test, train = features
    assert test.labels is not None
    assert train.labels is not None
    return knn_top1(train.features, train.labels, test.features, test.labels, ks=(k,))[k]
