"""Linear layers trained by SGD on augmented views through a frozen backbone, as the papers do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from disco_zoo.core.random_streams import stream_generator
from disco_zoo.data.dataset import ImageSource
from disco_zoo.errors import TrainingDiverged
from disco_zoo.evaluation.features import Features
from disco_zoo.evaluation.metrics import class_weight, top1_top5
from disco_zoo.evaluation.probes.batches import ProbeBatches
from disco_zoo.evaluation.probes.checkpoint import ProbeCheckpoint
from disco_zoo.evaluation.probes.crop_features import CropFeatures
from disco_zoo.evaluation.probes.settings import ProbeSettings, Score
from disco_zoo.models.encoder import frozen, pooled
from disco_zoo.protocols.linear import LinearProtocol
from disco_zoo.transforms.eval import normalize

FeatureTransform = Callable[[Tensor], Tensor]


def train_linear_layers(
    backbone: nn.Module,
    transform: FeatureTransform,
    train_source: ImageSource,
    train_labels: Sequence[int],
    test: Features,
    protocol: LinearProtocol,
    settings: ProbeSettings,
    base_lrs: Sequence[float],
    progress: Callable[[int], None],
    checkpoint: tuple[ProbeCheckpoint, Mapping[str, Any]] | None = None,
) -> list[list[Score]]:
    """Train one layer a rate on the same A-plain views and score the cached test features after each epoch.

    The backbone is frozen and EVAL is not random, so extracting the test features once changes nothing. Nearly all
    the time goes into the backbone, so a sweep costs little more than one rate.

    Args:
        transform: the protocol's normalisation of features, applied to training and test features alike.
        base_lrs: for a batch of 256.
        progress: called with the number of training images done, over all epochs.
        checkpoint: where the state is kept after each epoch, and the key of this probe.

    Returns:
        For each rate the scores of its epochs; of a rate that diverged those before it did.

    Raises:
        TrainingDiverged: the loss of every rate is not finite.
        BadRunFolder: the checkpoint is another probe's.
    """
    device = torch.device(settings.device)
    num_classes = int(max(train_labels)) + 1
    test_features, test_labels = transform(test.features.to(device)), test.truth.to(device)
    layers = [_Layer(num_classes, test_features.shape[1], lr, protocol, settings) for lr in base_lrs]
    first = _restore(layers, checkpoint)

    def compute(images: Tensor) -> Tensor:
        return pooled(backbone, normalize(images.to(device), settings.mean, settings.std))

    crops = CropFeatures(ProbeBatches(train_source, train_labels, settings), compute, settings.crops)
    with frozen(backbone, device):
        for epoch in range(first, settings.epochs):
            done = epoch * len(train_source)
            for layer in layers:
                layer.begin(epoch)
            for features, labels in crops.epoch(epoch):
                _step_all(layers, transform(features.to(device)), labels.to(device), epoch)
                done += len(labels)
                progress(done)
            for layer in layers:
                layer.score(test_features, test_labels)
            if checkpoint is not None:
                file, key = checkpoint
                file.save(key, {"epochs": epoch + 1, "layers": [layer.state() for layer in layers]})
    return [layer.scores for layer in layers]


class _Layer:
    """A linear classifier with its optimiser: weight ~ N(0, 0.01²) and bias 0, whatever the rate."""

    def __init__(
        self, num_classes: int, width: int, base_lr: float, protocol: LinearProtocol, settings: ProbeSettings
    ) -> None:
        device = torch.device(settings.device)
        weight = class_weight(num_classes, width, stream_generator("linear_layer", settings.seed))
        self.weight = weight.to(device).requires_grad_()
        self.bias = torch.zeros(num_classes, device=device).requires_grad_()
        self.optimizer = torch.optim.SGD(
            [self.weight, self.bias], lr=1.0, momentum=protocol.momentum, weight_decay=protocol.weight_decay
        )
        self.base_lr, self.protocol, self.settings = base_lr, protocol, settings
        self.diverged = False
        self.scores: list[Score] = []

    def begin(self, epoch: int) -> None:
        """Set the rate of an epoch (from 0)."""
        self.optimizer.param_groups[0]["lr"] = self.protocol.lr(
            epoch, batch_size=self.settings.batch_size, epochs=self.settings.epochs, base_lr=self.base_lr
        )

    def step(self, features: Tensor, labels: Tensor) -> None:
        """One step on frozen features (B, D), unless the loss is or was not finite."""
        if self.diverged:
            return
        with torch.enable_grad():
            loss = F.cross_entropy(F.linear(features, self.weight, self.bias), labels)
        self.diverged = not bool(torch.isfinite(loss))
        if not self.diverged:
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()

    def score(self, test_features: Tensor, test_labels: Tensor) -> None:
        if not self.diverged:
            self.scores.append(top1_top5(F.linear(test_features, self.weight, self.bias), test_labels))

    def state(self) -> dict[str, Any]:
        return {
            "weight": self.weight.detach().cpu(),
            "bias": self.bias.detach().cpu(),
            "optimiser": self.optimizer.state_dict(),
            "diverged": self.diverged,
            "scores": self.scores,
        }

    def load(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            self.weight.copy_(state["weight"])
            self.bias.copy_(state["bias"])
        self.optimizer.load_state_dict(state["optimiser"])
        self.diverged, self.scores = state["diverged"], list(state["scores"])


def _step_all(layers: Sequence[_Layer], features: Tensor, labels: Tensor, epoch: int) -> None:
    """One step of each layer that has not diverged."""
    for layer in layers:
        layer.step(features, labels)
    if all(layer.diverged for layer in layers):
        rates = ", ".join(f"{layer.optimizer.param_groups[0]['lr']:g}" for layer in layers)
        raise TrainingDiverged(f"The linear probe diverged in epoch {epoch + 1} at lr {rates}. Type a smaller --lr.")


def _restore(layers: Sequence[_Layer], checkpoint: tuple[ProbeCheckpoint, Mapping[str, Any]] | None) -> int:
    """Load the checkpoint; return the number of finished epochs."""
    if checkpoint is None:
        return 0
    file, key = checkpoint
    state = file.load(key)
    if state is None:
        return 0
    for layer, stored in zip(layers, state["layers"], strict=True):
        layer.load(stored)
    return int(state["epochs"])
