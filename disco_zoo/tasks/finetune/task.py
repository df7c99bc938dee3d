"""Fine-tuning a classifier as a task of the `Trainer`: its loss, the best epoch, and early stopping."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from disco_zoo.core.loader import BoundedLoader
from disco_zoo.core.random_streams import stream_seed
from disco_zoo.data.dataset import ImageSource
from disco_zoo.data.unreadable import unreadable_limit
from disco_zoo.evaluation.probes.batches import Batch, LabeledViews
from disco_zoo.models.classifier_dir import Classifier
from disco_zoo.tasks.finetune.batches import StepBatches, mixed, training_loader, training_view
from disco_zoo.tasks.finetune.classes import balanced_weights
from disco_zoo.tasks.finetune.scoring import Scores, score
from disco_zoo.tasks.finetune.settings import FinetuneSettings, steps_per_epoch
from disco_zoo.tasks.finetune.start import build_optimizer, set_modes, set_rate
from disco_zoo.training.optim import lr_at
from disco_zoo.training.task import Position, Task
from disco_zoo.transforms.eval import normalize

LOGGED_STEPS = 200  # of a whole run


@dataclass
class FinetunePosition(Position):
    """How far a fine-tuning is.

    Attributes:
        best_epoch: from 1; 0 before the first one is judged.
        best_score: (figure in percent, minus the loss) of that epoch on the held-out images.
        stopped: whether `patience` has ended the run.
    """

    best_epoch: int = 0
    best_score: list[float] = field(default_factory=list)
    stopped: bool = False


class FinetuneTask(Task):
    """One fine-tuning.

    Args:
        classifier: its network is trained in place, on `device`.
        train: labelled images.
        held_out: labelled images that choose the best epoch; None keeps the last one.
        settings: resolved.
        workers: processes that draw views; the views are the same for any number.
    """

    position: FinetunePosition

    def __init__(
        self,
        classifier: Classifier,
        train: ImageSource,
        held_out: ImageSource | None,
        settings: FinetuneSettings,
        *,
        device: torch.device | str = "cpu",
        workers: int = 0,
        label: str = "fine-tuning",
    ) -> None:
        assert settings.epochs is not None
        assert train.labels is not None
        self.classifier, self.train_source, self.held_out = classifier, train, held_out
        self.labels = train.labels
        self.settings, self.workers, self.title = settings, workers, label
        self.device, self.position, self.seed = torch.device(device), FinetunePosition(), settings.seed
        classifier.network.to(self.device)
        self.num_classes = len(classifier.label_names)
        self.steps_per_epoch = steps_per_epoch(len(train), settings.batch_size)
        self.total_steps = settings.epochs * self.steps_per_epoch
        self.log_every = max(1, self.total_steps // LOGGED_STEPS)
        self.checkpoint_every = settings.checkpoint_every_steps
        self.max_unreadable, self.data_name = unreadable_limit(len(train)), train.name
        self.base_lr = settings.optim.base_lr
        self.optimizer = build_optimizer(classifier.network, settings)
        balanced = settings.class_weights == "balanced"
        self.weights = balanced_weights(self.labels, self.num_classes).to(self.device) if balanced else None
        self._best: dict[str, Tensor] = {}  # tensors of the best epoch
        self._is_judging = False

    @property
    def finished(self) -> bool:
        return self.position.stopped or super().finished

    def fingerprint(self) -> str:
        return self.train_source.fingerprint()

    def prepare(self, folder: Path) -> None:
        torch.manual_seed(stream_seed("finetune", self.seed))  # dropout draws from it

    def loaders(self, first_step: int, last_step: int) -> Iterator[BoundedLoader]:
        view = training_view(self.settings.augment, self.classifier.image_size, self.classifier.resize_size)
        batches = StepBatches(
            len(self.train_source), self.settings.batch_size, seed=self.seed, first=first_step, last=last_step
        )
        views = LabeledViews(self.train_source, self.labels, view, self.seed)
        yield training_loader(views, batches, self.workers)

    def unreadable(self, batch: Batch) -> list[tuple[int, str]]:
        return [(error.index, str(error)) for error in batch[2]]

    @property
    def lr(self) -> float:
        """The head's rate for the step to come."""
        optim = self.settings.optim
        return lr_at(self.position.step, peak_lr=optim.base_lr, steps_per_epoch=self.steps_per_epoch, optim=optim)

    def set_lr(self, lr: float) -> None:
        set_rate(self.optimizer, lr)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Of uint8 images (B, 3, S, S) and labels int64 (B,)."""
        settings, classifier = self.settings, self.classifier
        images, labels = batch[0].to(self.device), batch[1].to(self.device)
        set_modes(classifier.network, settings)
        inputs, shares = mixed(
            normalize(images, classifier.mean, classifier.std),
            labels,
            self.num_classes,
            mixup=settings.mixup,
            cutmix=settings.cutmix,
            seed=settings.seed,
            step=self.position.step,
        )
        half = torch.autocast(self.device.type, torch.bfloat16, enabled=settings.precision == "bf16")
        with half:
            scores = classifier.network(inputs)
        smoothing = settings.label_smoothing
        return {"loss": F.cross_entropy(scores.float(), shares, self.weights, label_smoothing=smoothing)}

    def log_is_due(self, step: int, last_step: int) -> bool:
        return super().log_is_due(step, last_step) or self._ends_epoch(step)

    def log_step(self, losses: dict[str, Tensor], lr: float) -> None:
        epoch, loss = self._epoch, losses["loss"].item()
        self.log.step({"epoch": epoch, "train_loss": loss, "lr": lr}, f"epoch {epoch}, loss {loss:.3f}")

    def measure(self, last_step: int) -> None:
        if self.held_out is not None and self._ends_epoch(self.position.step):
            self._is_judging = True
            self._judge(self.held_out)
            self._is_judging = False

    @property
    def may_save(self) -> bool:
        return not self._is_judging  # a checkpoint now would be of an epoch that is never judged

    def state(self) -> dict[str, Any]:
        network = self.classifier.network.state_dict()
        return {"settings": self.settings.digest(), "network": network, "best": self._best}

    def load_state(self, state: dict[str, Any]) -> None:
        self.classifier.network.load_state_dict(state["network"], strict=True)
        self._best = state["best"]

    def finish(self) -> None:
        """Leave the best epoch in the network, or the last one where no image was held out."""
        if self.position.best_epoch:
            self.classifier.network.load_state_dict(self._best, strict=True)

    def _judge(self, held_out: ImageSource) -> None:
        """Score the held-out images; keep the epoch if it is the best, stop if there was no better one for long."""
        found = score(self.classifier, held_out, device=self.device, workers=self.workers)
        position, epoch, rank = self.position, self._epoch, self._rank(found)
        record = {"epoch": epoch, "val_loss": found.loss, "val_top1": found.top1}
        self.log.evaluation("held-out", record, f"held-out {found.top1:.1f} %")
        if not position.best_score or rank > position.best_score:
            position.best_epoch, position.best_score = epoch, rank
            self._best = {key: tensor.cpu().clone() for key, tensor in self.classifier.network.state_dict().items()}
        patience = self.settings.patience
        position.stopped = patience is not None and epoch - position.best_epoch >= patience

    def _rank(self, found: Scores) -> list[float]:
        """Balanced accuracy where classes are balanced by weight, else top-1; the loss decides between equals."""
        balanced = self.settings.class_weights == "balanced"
        return [found.mean_recall if balanced else found.top1, -found.loss]

    @property
    def _epoch(self) -> int:
        """The epoch, from 1, of the step that was taken last."""
        return (self.position.step - 1) // self.steps_per_epoch + 1

    def _ends_epoch(self, step: int) -> bool:
        return step % self.steps_per_epoch == 0


def network_facts(classifier: Classifier) -> dict[str, Any]:
    """The network's facts for `run.json`."""
    network: Any = classifier.network
    return {
        "architecture": network.pretrained_cfg["architecture"],
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "classes": list(classifier.label_names),
        "image_size": classifier.image_size,
        "resize_size": classifier.resize_size,
        "mean": list(classifier.mean),
        "std": list(classifier.std),
    }
