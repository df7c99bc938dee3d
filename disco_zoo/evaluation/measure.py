"""The figures of one set of frozen features: weighted kNN and a linear probe, in percent.

All processes of a run extract features, each its share of the images.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from disco_zoo.config.recipe import Recipe
from disco_zoo.core.console import StepProgress
from disco_zoo.core.distributed import copy_buffers_from_first, gather_on_first, num_processes, rank
from disco_zoo.core.random_streams import stream_generator
from disco_zoo.data.dataset import ImageSource, require_labels, require_same_classes
from disco_zoo.data.pairing import say_missing_classes
from disco_zoo.data.subsets import SubsetSource
from disco_zoo.errors import BadData
from disco_zoo.evaluation.features import Features, LabeledImages, extract_features
from disco_zoo.evaluation.knn import knn_top1
from disco_zoo.evaluation.probes.linear import check_classes, linear_probe, linear_probe_on_features
from disco_zoo.models.encoder import Encoder, backbone_fingerprint


def shared_features(backbone: nn.Module, source: LabeledImages, *, indices: Sequence[int], **options: Any) -> Features:
    """As `extract_features`, for all processes to call together: each computes a part, and the first gets the whole.

    The whole is in the order of `indices`, whatever the number of processes: some probes split rows by their place.
    BatchNorm's statistics, of which each process has its own between two steps, are those of the first one.

    Args:
        indices: which images, as many as there are processes or more.
        options: of `extract_features`.

    Returns:
        All features on the first process, the own part on the others.
    """
    if num_processes() == 1:
        return extract_features(backbone, source, indices=indices, **options)
    copy_buffers_from_first(backbone, options.get("device", "cpu"))
    first, last = (len(indices) * number // num_processes() for number in (rank(), rank() + 1))
    own = extract_features(backbone, source, indices=indices[first:last], **options)
    parts: list[Features] | None = gather_on_first(own)
    if parts is None:
        return own
    return Features(
        torch.cat([part.features for part in parts]),
        None if source.labels is None else torch.cat([part.truth for part in parts]),
        tuple(message for part in parts for message in part.unreadable),
    )


KNN_KS = (1, 20, 200)
TIMED_IMAGES = 64
KNN_PROTOCOL = "kNN: cosine, weights exp(sim/0.07)"


@dataclass(frozen=True)
class Measurement:
    """Top-1 figures by metric name (`knn20_top1`, `linear_top1`, ...) and the test features they came from."""

    figures: dict[str, float]
    test_features: Features


def recipe_bench(
    recipe: Recipe,
    train: ImageSource,
    test: ImageSource,
    device: torch.device | str,
    max_images: int | None = None,
) -> Bench:
    """The bench a recipe asks for, checked before the long work."""
    size = recipe.eval_size
    bench = Bench(train, test, size, recipe.eval.resize_size, recipe.eval.linear, device, max_images=max_images)
    bench.check()
    return bench


@dataclass(frozen=True)
class Bench:
    """Labelled images and input settings on which several networks are compared.

    Attributes:
        train, test: labelled sources.
        image_size, resize_size: pixels, see `evaluate.features.eval_transform`.
        linear: a protocol of `LINEAR_PROTOCOLS`; "fast" works on the features that kNN uses.
        max_images: of each source, drawn at random once; None takes all. For a quick look.
    """

    train: ImageSource
    test: ImageSource
    image_size: int
    resize_size: int | None
    linear: str = "fast"
    device: torch.device | str = "cpu"
    workers: int = 0
    max_images: int | None = None

    @property
    def protocol(self) -> str:
        """One line that says how the figures were measured."""
        probe = "logistic regression on standardised features (fast)" if self.linear == "fast" else self.linear
        return f"{KNN_PROTOCOL}; linear: {probe}"

    def check(self, ks: Sequence[int] = KNN_KS) -> None:
        """Find what cannot be evaluated before hours of training.

        Args:
            ks: numbers of neighbours that will be asked for.

        Raises:
            BadData: no labels, one class, classes that differ between the splits, or fewer images than neighbours.
        """
        labels = [torch.tensor(require_labels(source, "evaluation")) for source in (self.train, self.test)]
        require_same_classes(self.train, self.test)
        check_classes(labels[0], labels[1], self.train.class_names)
        say_missing_classes(self.train, self.test)
        if ks and len(self.train) < max(ks):
            raise BadData(
                f"kNN with k={max(ks)} needs more than the {len(self.train)} images of {self.train.name}. Give more."
            )

    def measure(
        self,
        backbone: nn.Module,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        label: str,
        image_size: int | None = None,
    ) -> Measurement:
        """Measure a backbone at this bench's size, or at its own `image_size` without a margin around the crop.

        All processes of a run call this: they share the images, and the first one has the figures.
        """
        before = backbone_fingerprint(backbone)
        chosen = [self._chosen(source) for source in (self.train, self.test)]
        with StepProgress(label, sum(map(len, chosen))) as progress:
            train, test = (
                shared_features(
                    backbone,
                    source,
                    image_size=image_size or self.image_size,
                    resize_size=image_size or self.resize_size,
                    mean=mean,
                    std=std,
                    device=self.device,
                    workers=self.workers,
                    indices=indices,
                    progress=progress.part(first),
                )
                for source, indices, first in zip((self.train, self.test), chosen, (0, len(chosen[0])), strict=True)
            )
        if rank() != 0:
            return Measurement({}, test)
        if self.linear == "fast":
            linear = linear_probe_on_features(train, test)
        else:
            linear = linear_probe(
                backbone,
                train.features.shape[1],
                *self._probed(chosen),
                protocol=self.linear,
                epochs=None if self.max_images is None else 1,
                image_size=image_size or self.image_size,
                resize_size=image_size or self.resize_size,
                mean=mean,
                std=std,
                device=self.device,
                workers=self.workers,
            )
        figures = {**_knn(train, test), "linear_top1": linear.top1}
        if backbone_fingerprint(backbone) != before:
            raise RuntimeError("evaluation changed the backbone")  # a bug of ours, not of the user's
        return Measurement(figures, test)

    def measure_student(self, student: Encoder, label: str) -> Measurement:
        """Measure a student's backbone with its own normalisation."""
        return self.measure(student.backbone, mean=student.mean, std=student.std, label=label)

    def measure_pixels(self, image_size: int) -> dict[str, float]:
        """kNN on raw pixels of `image_size`: what no network at all gives."""
        pixels = (
            extract_features(
                nn.Flatten(),
                source,
                image_size=image_size,
                resize_size=image_size,
                mean=(0.5,) * 3,
                std=(0.5,) * 3,
                indices=self._chosen(source),
            )
            for source in (self.train, self.test)
        )
        return _knn(*pixels)

    def feature_seconds(self, backbone: nn.Module, image_size: int | None = None) -> float:
        """About how long the features of all its images take, from those of a few after a warm-up."""
        few = range(min(TIMED_IMAGES, len(self.test)))
        for _ in range(2):
            begun = time.monotonic()
            extract_features(
                backbone,
                self.test,
                image_size=image_size or self.image_size,
                resize_size=None if image_size else self.resize_size,
                mean=(0.5,) * 3,
                std=(0.5,) * 3,
                device=self.device,
                indices=few,
            )
            seconds = time.monotonic() - begun
        return seconds / len(few) * sum(len(self._chosen(source)) for source in (self.train, self.test))

    def _probed(self, chosen: Sequence[Sequence[int]]) -> tuple[ImageSource, ImageSource]:
        """Training and test images of a linear probe; of part of the images no class that only the tests have."""
        if self.max_images is None:
            return self.train, self.test
        train = SubsetSource(self.train, chosen[0])
        labels, known = require_labels(self.test, "evaluation"), {*require_labels(train, "evaluation")}
        return train, SubsetSource(self.test, [index for index in chosen[1] if labels[index] in known])

    def _chosen(self, source: ImageSource) -> Sequence[int]:
        order = torch.randperm(len(source), generator=stream_generator("bench", 0))
        return order[: self.max_images].tolist() if self.max_images else range(len(source))


def _knn(train: Features, test: Features) -> dict[str, float]:
    return {f"knn{k}_top1": value for k, value in knn_top1_of(train, test, KNN_KS).items()}


def knn_top1_of(train: Features, test: Features, ks: Sequence[int]) -> dict[int, float]:
    """As `knn_top1`, of features with their labels."""
    return knn_top1(train.features, train.truth, test.features, test.truth, ks=ks)
