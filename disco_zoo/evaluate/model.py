"""A model by name or folder, with the data to measure it on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from torch import nn

from disco_zoo.datasets import ImageSource, open_source
from disco_zoo.encoder import feature_dim_of
from disco_zoo.errors import UnknownName, did_you_mean
from disco_zoo.evaluate.features import Features, extract_features
from disco_zoo.evaluate.knn import knn_top1
from disco_zoo.evaluate.linear import LinearResult, linear_probe
from disco_zoo.measure import Bench
from disco_zoo.progress import StepProgress
from disco_zoo.teachers import load_teacher_source


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
    data: str,
    eval_data: str | None,
    image_size: int | None,
    resize_size: int | None,
    device: str,
    workers: int,
) -> Subject:
    """Load a zoo model, a timm model (both with weights) or a run folder, and its labelled data.

    Raises:
        UnknownName: no such model.
        BadData: the data cannot be used.
        WeightsError: the model's weights cannot be had.
    """
    train, test = _open(data, eval_data)
    backbone, mean, std, size, resize = _load(model)
    if image_size is not None:
        size, resize = image_size, resize_size  # EVAL's proportion, unless told otherwise
    bench = Bench(train, test, size, resize_size or resize, device=device, workers=workers)
    bench.check()
    return Subject(model, backbone, mean, std, bench)


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


def _open(data: str, eval_data: str | None) -> tuple[ImageSource, ImageSource]:
    test = open_source(eval_data, "test", dedicated=True) if eval_data else open_source(data, "test")
    return open_source(data, "train"), test


def _load(model: str) -> tuple[nn.Module, tuple[float, ...], tuple[float, ...], int, int | None]:
    """Backbone, mean, std, crop and resize sizes."""
    if Path(model).is_dir():
        loaded = load_teacher_source(model)
        return loaded.backbone, loaded.mean, loaded.std, loaded.image_size or 224, loaded.resize_size
    import disco_zoo.disco_students  # noqa: F401  registers the zoo's names

    if not model.startswith("hf-hub:") and not timm.is_model(model):
        raise UnknownName(
            f"'{model}' is no zoo model, timm model or run folder.{did_you_mean(model, timm.list_models())}"
        )
    backbone = timm.create_model(model, pretrained=True, num_classes=0)
    cfg = timm.data.resolve_model_data_config(backbone)
    size = cfg["input_size"][-1]
    return backbone, cfg["mean"], cfg["std"], size, math.floor(size / cfg["crop_pct"])
