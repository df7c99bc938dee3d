"""The accuracy lost to int8 where there are labels, and the angle between features or scores before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from disco_zoo.core.console import StepProgress
from disco_zoo.core.random_streams import stream_generator
from disco_zoo.data.dataset import ImageSource
from disco_zoo.errors import BadData, DiscoZooError, shown
from disco_zoo.evaluation.features import Features, extract_features
from disco_zoo.evaluation.measure import knn_top1_of
from disco_zoo.exporting.onnx_file import FileNetwork
from disco_zoo.exporting.subject import Subject


@dataclass(frozen=True)
class Int8Loss:
    """Figures of int8 and of float32 on the same images.

    Attributes:
        mean_cosine, lowest_cosine: between the two features, or scores, of a test image.
        top1: in percent, (float32, int8); None without labels. Of a classifier its own, of a backbone by kNN.
        k: of the kNN; None of a classifier.
        num_train, num_test: images.
        same_class: of a classifier, the share in percent of test images that both give the same class.
    """

    mean_cosine: float
    lowest_cosine: float
    top1: tuple[float, float] | None
    k: int | None
    num_train: int
    num_test: int
    same_class: float | None = None

    def describe(self) -> str:
        turned = f"cosine to float32 {self.mean_cosine:.4f} on average, {self.lowest_cosine:.4f} at worst"
        if self.same_class is not None:
            turned = f"same class as float32 {self.same_class:.2f} %, {turned}"
        if self.top1 is None:
            return f"{turned}, over {self.num_test} images"
        full, small = self.top1
        by, train = ("", "") if self.k is None else (f"kNN (k={self.k}) ", f"{self.num_train} training and ")
        return (
            f"{by}top-1 {full:.2f} % in float32, {small:.2f} % in int8 ({small - full:+.2f}), "
            f"{train}{self.num_test} test images; {turned}"
        )

    def as_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "mean_cosine": self.mean_cosine,
            "lowest_cosine": self.lowest_cosine,
            "num_test": self.num_test,
        }
        if self.same_class is not None:
            found["same_class"] = self.same_class
        if self.top1 is not None:
            kind = "" if self.k is None else "knn_"
            found |= {f"float32_{kind}top1": self.top1[0], f"int8_{kind}top1": self.top1[1]}
            found |= {} if self.k is None else {"knn_k": self.k, "num_train": self.num_train}
        return found


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
        small: the int8 file.
        test: the images compared; with labels on it and on `train`, kNN is measured too. A classifier needs no
            `train`, and its accuracy is measured on test images alone.
        train: the bank of the kNN.

    Raises:
        BadData: too many images cannot be read.
    """
    other = FileNetwork(small, subject.takes_pixels)
    parts = [(test, test_indices)] + ([(train, train_indices)] if train is not None else [])
    full: list[Features] = []
    quantized: list[Features] = []
    total = 2 * sum(len(indices) for _, indices in parts)
    with StepProgress("float32 against int8", total) as progress:
        for found, network in ((full, subject.named.backbone), (quantized, other)):
            for source, indices in parts:
                begun = progress.done
                found.append(_features(network, subject, source, indices, workers, progress, begun))
    cosines = F.cosine_similarity(full[0].features.double(), quantized[0].features.double())
    if not torch.isfinite(cosines).all():
        raise DiscoZooError(f"{small} gives features that are not finite")
    cosine, lowest, num_test = cosines.mean().item(), cosines.min().item(), len(full[0])
    if subject.label_names is not None:
        top1, same = _of_classifier(subject, test, full[0], quantized[0])
        return Int8Loss(cosine, lowest, top1, None, 0, num_test, same)
    if train is None or full[0].labels is None or full[1].labels is None:
        return Int8Loss(cosine, lowest, None, None, 0, num_test)
    k = min(k, len(full[1]))
    before, after = (knn_top1_of(bank, queries, (k,))[k] for queries, bank in (full, quantized))
    return Int8Loss(cosine, lowest, (before, after), k, len(full[1]), num_test)


def classes_of(subject: Subject, source: ImageSource) -> Tensor | None:
    """The number int64 (K,) that a classifier gives to each class of a source, by name; None where it has no labels.

    Raises:
        BadData: the classifier does not know one of the classes.
    """
    known = subject.label_names or ()
    if source.labels is None:
        return None
    names = source.class_names or [*map(str, range(max(source.labels) + 1))]
    if source.class_names is None and len(names) <= len(known):  # numbers alone: taken as they are
        return torch.arange(len(names))
    unknown = [name for name in names if name not in known]
    if unknown:
        raise BadData(
            f"{subject.named.name} does not know these classes of {source.name}: {', '.join(map(shown, unknown[:5]))}. "
            "Give images of its own classes, or add --features"
        )
    return torch.tensor([known.index(name) for name in names])


def _of_classifier(
    subject: Subject, test: ImageSource, full: Features, quantized: Features
) -> tuple[tuple[float, float] | None, float]:
    """Top-1 of both in percent, where the images are labelled test images; and how often they agree, in percent."""
    ours, theirs = full.features.argmax(dim=1), quantized.features.argmax(dim=1)
    same = _percent(ours == theirs)
    numbers = classes_of(subject, test)
    if numbers is None or full.labels is None or test.split != "test":
        return None, same
    truth = numbers[full.labels]
    return (_percent(ours == truth), _percent(theirs == truth)), same


def _percent(right: Tensor) -> float:
    return 100.0 * right.double().mean().item()


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
    plain = subject.takes_pixels and isinstance(network, FileNetwork)
    mean, std = ((0.0,) * 3, (1.0,) * 3) if plain else (subject.named.mean, subject.named.std)
    return extract_features(
        network,
        source,
        image_size=subject.image_size,
        resize_size=subject.resize_size,
        mean=mean,
        std=std,
        batch_size=64,
        workers=workers,
        indices=indices,
        progress=progress.part(begun),
    )
