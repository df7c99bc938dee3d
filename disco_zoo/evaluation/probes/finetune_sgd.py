"""Backbone and classifier trained together by SGD, as papers measure with few labels and on other data."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from disco_zoo.core.random_streams import drawing_from, stream_generator
from disco_zoo.data.dataset import ImageSource, require_index, require_labels, require_same_classes
from disco_zoo.errors import DiscoZooError, TrainingDiverged
from disco_zoo.evaluation.features import Progress
from disco_zoo.evaluation.metrics import class_weight, top1_top5
from disco_zoo.evaluation.probes.batches import ProbeBatches
from disco_zoo.evaluation.probes.checkpoint import ProbeCheckpoint
from disco_zoo.evaluation.probes.linear import check_classes
from disco_zoo.evaluation.probes.settings import LinearResult, ProbeSettings, Score, from_epochs, probe_settings
from disco_zoo.models.encoder import backbone_fingerprint
from disco_zoo.protocols.finetune import FinetuneProtocol
from disco_zoo.transforms.eval import normalize


def finetune_probe(
    backbone: nn.Module,
    feature_dim: int,
    train: ImageSource,
    test: ImageSource,
    *,
    protocol: FinetuneProtocol,
    share: float,
    image_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    resize_size: int | None = None,
    batch_size: int = 256,
    epochs: int | None = None,
    lr: float | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    workers: int = 0,
    progress: Progress | None = None,
    checkpoint: ProbeCheckpoint | None = None,
) -> LinearResult:
    """Train a copy of the backbone and a classifier; the test images are scored after each epoch.

    BatchNorm learns from the batches of one process; SwAV's, from those of eight.

    Args:
        backbone: maps normalised images (B, 3, S, S) to features (B, feature_dim); it stays as it is.
        train: the labelled images that are used.
        share: part of all labels that they are; it decides the protocol's rates.
        lr: of backbone and classifier, for a batch of 256, instead of the protocol's.
        seed: of the order, the crops, the classifier's start and the network's own draws (dropout).
        progress: called with (images done, images in total), over all epochs.

    Raises:
        BadData: no labels, a single class, or a class that one of the two sources lacks.
        DiscoZooError: the protocol states no rate and `lr` is missing.
        TrainingDiverged: the loss is not finite.
        BadRunFolder: the checkpoint is another probe's.
    """
    rates = check_finetuning(protocol, share, lr, epochs)
    for source in (train, test):
        require_index(source, "fine-tuning")
    require_same_classes(train, test)
    labels = [require_labels(source, "fine-tuning") for source in (train, test)]
    num_classes = check_classes(torch.tensor(labels[0]), torch.tensor(labels[1]), train.class_names)
    settings = probe_settings(
        protocol,
        image_size=image_size,
        resize_size=resize_size,
        mean=mean,
        std=std,
        batch_size=batch_size,
        epochs=epochs,
        seed=seed,
        device=device,
        workers=workers,
    )
    record = {f"protocol_{key}": value for key, value in asdict(protocol).items()}
    record |= asdict(settings) | {"device": str(device), "rates": list(rates), "share": share}
    record |= {"num_train": len(train), "num_test": len(test)}
    tuning = _Tuning(backbone, feature_dim, num_classes, protocol, settings, rates)
    key: dict[str, Any] = {}
    if checkpoint is not None:
        key = {name: value for name, value in record.items() if name not in ("workers", "device")}
        key |= {"train_fingerprint": train.fingerprint(), "test_fingerprint": test.fingerprint()}
        key |= {"backbone": backbone_fingerprint(backbone)}
        tuning.load(checkpoint.load(key))
    scores, unreadable = tuning.run(train, labels[0], test, progress, checkpoint, key)
    label = protocol.label(settings.epochs, lr, settings.batch_size)
    return from_epochs(label, scores, record, unreadable=unreadable)


def check_finetuning(
    protocol: FinetuneProtocol, share: float, lr: float | None, epochs: int | None
) -> tuple[float, float]:
    """The start rates of (backbone, classifier); refuses what cannot be.

    Raises:
        DiscoZooError: no rate, or one that is not positive, or no epoch.
    """
    if (lr is not None and not 0 < lr < math.inf) or (epochs is not None and epochs < 1):
        raise DiscoZooError("Fine-tuning needs a positive --lr and at least one epoch.")
    return protocol.start_rates(share, lr)


class _Tuning:
    """A network that learns."""

    def __init__(
        self,
        backbone: nn.Module,
        feature_dim: int,
        num_classes: int,
        protocol: FinetuneProtocol,
        settings: ProbeSettings,
        rates: tuple[float, float],
    ) -> None:
        self.protocol, self.settings, self.rates = protocol, settings, rates
        self.device = torch.device(settings.device)
        self.backbone = copy.deepcopy(backbone).to(self.device).requires_grad_()
        # `nn.Linear` would draw its start from the global generator.
        self.classifier = nn.utils.skip_init(nn.Linear, feature_dim, num_classes)
        with torch.no_grad():
            start = stream_generator("linear_layer", settings.seed)
            self.classifier.weight.copy_(class_weight(num_classes, feature_dim, start))
            self.classifier.bias.zero_()
        self.classifier.to(self.device)
        groups = [{"params": [*part.parameters()]} for part in (self.backbone, self.classifier)]
        self.optimizer = torch.optim.SGD(groups, lr=1.0, momentum=protocol.momentum, weight_decay=protocol.weight_decay)
        self.scores: list[Score] = []

    def run(
        self,
        train: ImageSource,
        labels: Sequence[int],
        test: ImageSource,
        progress: Progress | None,
        checkpoint: ProbeCheckpoint | None,
        key: dict[str, Any],
    ) -> tuple[list[Score], tuple[str, ...]]:
        """Train to the last epoch; the scores of all epochs, and what could not be read of the test images."""
        batches = ProbeBatches(train, labels, self.settings)
        of_epoch = len(train) + len(test)
        total = self.settings.epochs * of_epoch
        unreadable: tuple[str, ...] = ()
        for epoch in range(len(self.scores), self.settings.epochs):
            done = epoch * of_epoch
            with drawing_from("finetune_network", self.settings.seed, epoch):
                self._train_epoch(batches, epoch, done, total, progress)
            found = self.settings.features(self.backbone, test, progress, done + len(train), total)
            with torch.no_grad():
                self.scores.append(top1_top5(self._scores(found.features.to(self.device)).cpu(), found.truth))
            unreadable = found.unreadable
            if checkpoint is not None:
                checkpoint.save(key, self._state())
        return self.scores, unreadable

    def _train_epoch(self, batches: ProbeBatches, epoch: int, done: int, total: int, progress: Progress | None) -> None:
        scale = self.settings.batch_size / 256 * self.protocol.decay(epoch, self.settings.epochs)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = scale * rate
        self.backbone.train()
        for images, labels in batches.epoch(epoch):
            done += len(images)
            if len(images) > 1:  # of a single image BatchNorm learns nothing, and may fail
                self._step(images, labels, epoch)
            if progress is not None:
                progress(done, total)

    def _step(self, images: Tensor, labels: Tensor, epoch: int) -> None:
        features = self.backbone(normalize(images.to(self.device), self.settings.mean, self.settings.std))
        loss = F.cross_entropy(self._scores(features), labels.to(self.device))
        if not torch.isfinite(loss):
            raise TrainingDiverged(f"Fine-tuning diverged in epoch {epoch + 1}. Type a smaller --lr.")
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def _scores(self, features: Tensor) -> Tensor:
        logits: Tensor = self.classifier(F.normalize(features) if self.protocol.unit_features else features)
        return logits

    def _state(self) -> dict[str, Any]:
        return {
            "backbone": self.backbone.state_dict(),
            "classifier": self.classifier.state_dict(),
            "optimiser": self.optimizer.state_dict(),
            "scores": self.scores,
        }

    def load(self, state: dict[str, Any] | None) -> None:
        """Go on from `state`, if there is one."""
        if state is None:
            return
        self.backbone.load_state_dict(state["backbone"], strict=True)
        self.classifier.load_state_dict(state["classifier"], strict=True)
        self.optimizer.load_state_dict(state["optimiser"])
        self.scores = list(state["scores"])
