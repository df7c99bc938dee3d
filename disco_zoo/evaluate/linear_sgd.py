"""One linear layer trained by SGD on augmented views through a frozen backbone, as the papers do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from disco_zoo.datasets import ImageSource, UnreadableImage, UnreadableTally, load_or_replace
from disco_zoo.errors import TrainingDiverged
from disco_zoo.evaluate.features import Features, frozen, normalise, pooled, unreadable_limit
from disco_zoo.evaluate.linear_protocols import LinearProtocol
from disco_zoo.randomness import stream_generator
from disco_zoo.views import View, draw_view, plain_view

FeatureTransform = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class ProbeSettings:
    """What a probe needs besides its protocol.

    Attributes:
        image_size, resize_size: side of the views, and the shorter side before EVAL's crop, in pixels.
        mean, std: of the backbone, for RGB in 0..1.
        batch_size: images a step.
        epochs: passes over the training images.
        workers: processes that read images.
    """

    image_size: int
    resize_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    batch_size: int
    epochs: int
    seed: int
    device: torch.device | str
    workers: int


def train_linear_layer(
    backbone: nn.Module,
    transform: FeatureTransform,
    train_source: ImageSource,
    train_labels: Sequence[int],
    test: Features,
    protocol: LinearProtocol,
    settings: ProbeSettings,
    progress: Callable[[int], None],
) -> list[tuple[float, float | None]]:
    """Train on A-plain views and score the cached test features after each epoch.

    The backbone is frozen and EVAL is not random, so extracting the test features once changes nothing.

    Args:
        transform: the protocol's normalisation of features, applied to training and test features alike.
        progress: called with the number of training images done, over all epochs.

    Returns:
        (top-1, top-5 or None) in percent for each epoch.

    Raises:
        TrainingDiverged: the loss is not finite.
    """
    device = torch.device(settings.device)
    assert test.labels is not None
    num_classes = int(max(train_labels)) + 1
    test_features, test_labels = transform(test.features.to(device)), test.labels.to(device)
    weight, bias = _initial_layer(num_classes, test_features.shape[1], settings.seed, device)
    optimiser = torch.optim.SGD([weight, bias], lr=1.0, momentum=protocol.momentum, weight_decay=protocol.weight_decay)
    dataset = _PlainViews(train_source, train_labels, plain_view(settings.image_size), settings.seed)
    tally = UnreadableTally(unreadable_limit(len(train_source)))
    scores = []
    with frozen(backbone, device):
        for epoch in range(settings.epochs):
            optimiser.param_groups[0]["lr"] = protocol.lr(epoch, batch_size=settings.batch_size, epochs=settings.epochs)
            done = epoch * len(train_source)
            for images, labels in _batches(dataset, epoch, settings, tally):
                normalised = normalise(images.to(device), settings.mean, settings.std)
                features = transform(pooled(backbone, normalised))
                _step(optimiser, weight, bias, features, labels.to(device), epoch)
                done += len(images)
                progress(done)
            scores.append(top1_top5(F.linear(test_features, weight, bias), test_labels))
    return scores


def _step(
    optimiser: torch.optim.Optimizer,
    weight: Tensor,
    bias: Tensor,
    features: Tensor,
    labels: Tensor,
    epoch: int,
) -> None:
    """One step of the linear layer on frozen features (B, D)."""
    with torch.enable_grad():
        loss = F.cross_entropy(F.linear(features, weight, bias), labels)
    if not torch.isfinite(loss):
        lr = optimiser.param_groups[0]["lr"]
        raise TrainingDiverged(
            f"The linear probe diverged in epoch {epoch + 1} at lr {lr:g}. Take a protocol with a smaller lr."
        )
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def top1_top5(scores: Tensor, labels: Tensor) -> tuple[float, float | None]:
    """Accuracies in percent of class scores (N, K); no top-5 with five classes or fewer."""
    top1 = 100.0 * (scores.argmax(dim=1) == labels).sum().item() / len(labels)
    if scores.shape[1] <= 5:
        return top1, None
    in_top5 = (scores.topk(5, dim=1).indices == labels[:, None]).any(dim=1)
    return top1, 100.0 * in_top5.sum().item() / len(labels)


class _PlainViews(Dataset[tuple[Tensor, int, UnreadableImage | None]]):
    """Item (epoch, i): A-plain view of image i, uint8 (3, S, S), its label, and the error if i is unreadable.

    The epoch travels with the index, so that one set of workers serves any epoch.
    """

    def __init__(self, source: ImageSource, labels: Sequence[int], view: View, seed: int) -> None:
        self.source, self.labels, self.view, self.seed = source, labels, view, seed

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int, UnreadableImage | None]:
        epoch, index = key
        image, used, error = load_or_replace(self.source, index)
        return draw_view(self.view, image, self.seed, epoch, used, 0), self.labels[used], error


def _batches(
    dataset: _PlainViews, epoch: int, settings: ProbeSettings, tally: UnreadableTally
) -> Iterator[tuple[Tensor, Tensor]]:
    """The epoch's batches in an order fixed by (seed, epoch): uint8 (B, 3, S, S) and labels int64 (B,)."""
    generator = stream_generator("linear_order", settings.seed, epoch)
    order = torch.randperm(len(dataset.source), generator=generator).tolist()
    loader: DataLoader[tuple[Tensor, int, UnreadableImage | None]] = DataLoader(
        dataset,
        batch_size=settings.batch_size,
        sampler=[(epoch, index) for index in order],
        num_workers=settings.workers,
        collate_fn=_collate,
        generator=generator,
    )
    for images, labels, errors in loader:
        for error in errors:
            tally.add(error.index, str(error))
        tally.check()
        yield images, labels


def _collate(
    items: list[tuple[Tensor, int, UnreadableImage | None]],
) -> tuple[Tensor, Tensor, list[UnreadableImage]]:
    images, labels, errors = zip(*items, strict=True)
    return torch.stack(images), torch.tensor(labels), [error for error in errors if error is not None]


def _initial_layer(num_classes: int, width: int, seed: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Weight ~ N(0, 0.01²) (K, D) and bias 0 (K,), both with gradient; drawn without the global generator."""
    generator = stream_generator("linear_layer", seed)
    weight = torch.empty(num_classes, width).normal_(0.0, 0.01, generator=generator)
    return weight.to(device).requires_grad_(), torch.zeros(num_classes, device=device).requires_grad_()
