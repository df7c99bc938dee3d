"""A model by name or folder, with the data to measure it on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from disco_zoo.data_pair import open_labelled_pair
from disco_zoo.datasets import ImageSource
from disco_zoo.encoder import feature_dim_of
from disco_zoo.evaluate.features import Features, extract_features
from disco_zoo.evaluate.knn import knn_top1
from disco_zoo.evaluate.linear import LinearResult, linear_probe
from disco_zoo.measure import Bench
from disco_zoo.named_model import load_named_model
from disco_zoo.progress import StepProgress


@dataclass(frozen=True)
class Subject:
    """A frozen backbone and its bench.

    Attributes:
        bench: images and input size.
        mean, std: of the backbone's input.
    """

    name: str
    backbone: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]
    bench: Bench

    def describe(self) -> dict[str, Any]:
        bench = self.bench
        return {
            "model": self.name,
            "data": bench.train.name,
            "num_train": len(bench.train),
            "num_test": len(bench.test),
            "image_size": bench.image_size,
            "resize_size": bench.resize_size,
        }


def load_subject(
    *,
    model: str,
    pretrained: bool = True,
    data: str,
    eval_data: str | None,
    image_size: int | None,
    resize_size: int | None,
    device: str,
    workers: int,
) -> Subject:
    """Load what `load_named_model` knows, and its labelled data.

    Raises:
        UnknownName: no such model.
        BadData: the data cannot be used.
        WeightsError: the model's weights cannot be had.
    """
    train, test = open_labelled_pair(data, eval_data)
    named = load_named_model(model, pretrained=pretrained)
    size, resize = named.image_size, named.resize_size
    if image_size is not None:
        size, resize = image_size, resize_size  # EVAL's proportion, unless told otherwise
    bench = Bench(train, test, size, resize_size or resize, device=device, workers=workers)
    bench.check()
    return Subject(model, named.backbone, named.mean, named.std, bench)


def evaluate_knn(subject: Subject, *, ks: Sequence[int], temperature: float) -> dict[str, float]:
    """Weighted kNN for several k in one pass over features, in percent by metric name."""
    train, test = (_features(subject, source, source.split) for source in (subject.bench.train, subject.bench.test))
    assert train.labels is not None
    assert test.labels is not None
    top1 = knn_top1(train.features, train.labels, test.features, test.labels, ks=ks, temperature=temperature)
    return {f"knn{k}_top1": value for k, value in top1.items()}


def evaluate_linear(subject: Subject, *, protocol: str, epochs: int | None, seed: int) -> LinearResult:
    """A linear probe by a named protocol."""
    bench = subject.bench
    with StepProgress(f"linear probe, {protocol}", 1) as progress:
        return linear_probe(
            subject.backbone,
            feature_dim_of(subject.backbone),
            bench.train,
            bench.test,
            protocol=protocol,
            image_size=bench.image_size,
            resize_size=bench.resize_size,
            mean=subject.mean,
            std=subject.std,
            epochs=epochs,
            seed=seed,
            device=bench.device,
            workers=bench.workers,
            progress=progress.update,
        )


def _features(subject: Subject, source: ImageSource, label: str) -> Features:
    bench = subject.bench
    with StepProgress(f"features, {label}", len(source)) as progress:
        return extract_features(
            subject.backbone,
            source,
            image_size=bench.image_size,
            resize_size=bench.resize_size,
            mean=subject.mean,
            std=subject.std,
            device=bench.device,
            workers=bench.workers,
            progress=progress.update,
        )
