"""The training loop of a classifier: steps, best epoch, early stop, and checkpoints that a resumed run goes on from."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from disco_zoo.core.checkpoint import load_checkpoint, random_state, restore_random_state, save_checkpoint
from disco_zoo.core.console import StepProgress
from disco_zoo.core.interrupts import InterruptFlag
from disco_zoo.core.random_streams import stream_seed
from disco_zoo.data.dataset import ImageSource, UnreadableImage
from disco_zoo.data.unreadable import UnreadableTally, unreadable_limit
from disco_zoo.errors import BadRunFolder, CannotRead, Interrupted, TrainingDiverged
from disco_zoo.models.classifier_dir import Classifier
from disco_zoo.tasks.finetune.batches import StepBatches, TrainingViews, mixed, training_loader, training_view
from disco_zoo.tasks.finetune.classes import balanced_weights
from disco_zoo.tasks.finetune.folder import FinetuneFolder
from disco_zoo.tasks.finetune.optimizer import build_optimizer, set_modes, set_rate
from disco_zoo.tasks.finetune.scoring import Scores, score
from disco_zoo.tasks.finetune.settings import FinetuneSettings, steps_per_epoch
from disco_zoo.training.monitoring.metric_logger import MetricLogger
from disco_zoo.training.optim import lr_at
from disco_zoo.training.stopping import stopped
from disco_zoo.transforms.eval import normalize

LOGGED_STEPS = 200  # of a whole run


@dataclass
class Progress:
    """How far a run is; all of it goes into the checkpoint.

    Attributes:
        best_epoch: from 1; 0 before the first one is judged.
        best_score: (figure in percent, minus the loss) of that epoch on the held-out images.
        stopped: whether `patience` has ended the run.
    """

    step: int = 0
    seconds: float = 0.0
    best_epoch: int = 0
    best_score: list[float] = field(default_factory=list)
    stopped: bool = False
    unreadable: dict[int, str] = field(default_factory=dict)


class FinetuneTrainer:
    """One fine-tuning.

    Args:
        classifier: its network is trained in place, on `device`.
        train: labelled images.
        held_out: labelled images that choose the best epoch; None keeps the last one.
        settings: resolved.
        folder: a claimed run folder.
        workers: processes that draw views; the views are the same for any number.
    """

    def __init__(
        self,
        classifier: Classifier,
        train: ImageSource,
        held_out: ImageSource | None,
        settings: FinetuneSettings,
        folder: FinetuneFolder,
        *,
        device: torch.device | str = "cpu",
        workers: int = 0,
        label: str = "fine-tuning",
    ) -> None:
        assert settings.epochs is not None
        assert train.labels is not None
        self.classifier, self.train_source, self.held_out = classifier, train, held_out
        self.settings, self.folder, self.workers, self.label = settings, folder, workers, label
        self.device = torch.device(device)
        classifier.network.to(self.device)
        self.num_classes = len(classifier.label_names)
        self.steps_per_epoch = steps_per_epoch(len(train), settings.batch_size)
        self.total_steps = settings.epochs * self.steps_per_epoch
        self.optimizer = build_optimizer(classifier.network, settings)
        balanced = settings.class_weights == "balanced"
        self.weights = balanced_weights(train.labels, self.num_classes).to(self.device) if balanced else None
        self.progress = Progress()
        self._best: dict[str, Tensor] = {}  # tensors of the best epoch

    @property
    def finished(self) -> bool:
        return self.progress.stopped or self.progress.step >= self.total_steps

    def train(self, *, resume: bool = False, max_steps: int | None = None) -> None:
        """Run to the end or to step `max_steps`; then the network holds the best epoch, or the last without a judge.

        Raises:
            TrainingDiverged: the loss is not finite; the last checkpoint stays.
            Interrupted: Ctrl-C; the checkpoint is saved.
            BadData: too many images cannot be read.
            CannotRead: disk, memory or a process failed; the checkpoint is saved.
        """
        if resume:
            self._restore()
        else:
            torch.manual_seed(stream_seed("finetune", self.settings.seed))  # dropout draws from it
        metrics = MetricLogger(self.folder.path, resume_step=self.progress.step if resume else None)
        last_step = min(self.total_steps, max_steps or self.total_steps)
        try:
            with InterruptFlag() as flag, StepProgress(self.label, last_step, self.progress.step) as bar:
                try:
                    self._run(last_step, flag, bar, metrics)
                except (CannotRead, Interrupted) as error:
                    if self.progress.step and not self._is_judging:
                        self._save()
                    raise stopped(error, self.progress.step, self.total_steps, self.folder.checkpoint) from error
        finally:
            metrics.close()
        if self.progress.best_epoch:
            self.classifier.network.load_state_dict(self._best, strict=True)

    def _run(self, last_step: int, flag: InterruptFlag, bar: StepProgress, metrics: MetricLogger) -> None:
        if self.finished or self.progress.step >= last_step:
            return
        classifier, settings = self.classifier, self.settings
        view = training_view(settings.augment, classifier.image_size, classifier.resize_size)
        batches = StepBatches(
            len(self.train_source), settings.batch_size, seed=settings.seed, first=self.progress.step, last=last_step
        )
        loader = training_loader(TrainingViews(self.train_source, view, settings.seed), batches, self.workers)
        every = max(1, self.total_steps // LOGGED_STEPS)
        clock = time.monotonic()
        for images, labels, errors in loader:
            self._note_unreadable(errors)
            loss, lr = self._step(images.to(self.device), labels.to(self.device)), self.lr
            self.progress.step += 1
            step = self.progress.step
            self.progress.seconds += time.monotonic() - clock
            epoch_ends = step % self.steps_per_epoch == 0
            if step % every == 0 or epoch_ends or step == last_step:
                metrics.log({"step": step, "epoch": self._epoch(step), "train_loss": loss, "lr": lr})
                bar.advance(step, f"epoch {self._epoch(step)}, loss {loss:.3f}{self._judged}")
            if epoch_ends:
                self._is_judging = True  # a checkpoint now would be of an epoch that is never judged
                self._judge(step, metrics)
                self._is_judging = False
            ends = flag.raised or self.finished or step == last_step
            if ends or (step % settings.checkpoint_every_steps == 0):
                self._save()
            if ends:
                break
            clock = time.monotonic()
        if flag.raised and not self.finished:
            raise Interrupted("stopped")

    _judged = ""
    _is_judging = False

    @property
    def lr(self) -> float:
        """The head's rate for the step to come."""
        optim = self.settings.optim
        return lr_at(self.progress.step, peak_lr=optim.base_lr, steps_per_epoch=self.steps_per_epoch, optim=optim)

    def _step(self, images: Tensor, labels: Tensor) -> float:
        """One step on uint8 images (B, 3, S, S) and labels int64 (B,); the loss."""
        settings, classifier = self.settings, self.classifier
        set_modes(classifier.network, settings)
        set_rate(self.optimizer, self.lr)
        inputs, shares = mixed(
            normalize(images, classifier.mean, classifier.std),
            labels,
            self.num_classes,
            mixup=settings.mixup,
            cutmix=settings.cutmix,
            seed=settings.seed,
            step=self.progress.step,
        )
        half = torch.autocast(self.device.type, torch.bfloat16, enabled=settings.precision == "bf16")
        with half:
            scores = classifier.network(inputs)
        loss = F.cross_entropy(scores.float(), shares, self.weights, label_smoothing=settings.label_smoothing)
        value = loss.item()
        if not math.isfinite(value):
            raise TrainingDiverged(
                f"the loss is {value} at step {self.progress.step} with lr {self.lr:.3g}. "
                f"Start again with --set lr={self.settings.optim.base_lr / 3:.2g} and another --out"
            )
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return value

    def _judge(self, step: int, metrics: MetricLogger) -> None:
        """Score the held-out images; keep the epoch if it is the best, stop if there was no better one for long."""
        if self.held_out is None:
            return
        found = score(self.classifier, self.held_out, device=self.device, workers=self.workers)
        epoch, rank = self._epoch(step), self._rank(found)
        metrics.log({"step": step, "epoch": epoch, "val_loss": found.loss, "val_top1": found.top1})
        self._judged = f", held-out {found.top1:.1f} %"
        if not self.progress.best_score or rank > self.progress.best_score:
            self.progress.best_epoch, self.progress.best_score = epoch, rank
            self._best = {key: tensor.cpu().clone() for key, tensor in self.classifier.network.state_dict().items()}
        patience = self.settings.patience
        self.progress.stopped = patience is not None and epoch - self.progress.best_epoch >= patience

    def _rank(self, found: Scores) -> list[float]:
        """Balanced accuracy where classes are balanced by weight, else top-1; the loss decides between equals."""
        balanced = self.settings.class_weights == "balanced"
        return [found.mean_recall if balanced else found.top1, -found.loss]

    def _epoch(self, step: int) -> int:
        """The epoch, from 1, that step number `step` (from 1) belongs to."""
        return (step - 1) // self.steps_per_epoch + 1

    def _save(self) -> None:
        state = {
            "settings": self.settings.digest(),
            "data": self.train_source.fingerprint(),
            "progress": vars(self.progress).copy(),
            "network": self.classifier.network.state_dict(),
            "best": self._best,
            "optimiser": self.optimizer.state_dict(),
            "random": random_state(),
        }
        save_checkpoint(self.folder.checkpoint, state)

    def _restore(self) -> None:
        state = load_checkpoint(self.folder.checkpoint)
        if state.get("data") != self.train_source.fingerprint():
            raise BadRunFolder(
                f"{self.folder.path} holds a run on other images than {self.train_source.name}. "
                "Repeat the command with the --data that started it, or choose another --out"
            )
        self.classifier.network.load_state_dict(state["network"], strict=True)
        self._best = state["best"]
        self.optimizer.load_state_dict(state["optimiser"])
        self.progress = Progress(**state["progress"])
        restore_random_state(state["random"])

    def _note_unreadable(self, errors: list[UnreadableImage]) -> None:
        tally = UnreadableTally(unreadable_limit(len(self.train_source)))
        tally.messages = self.progress.unreadable
        new = [tally.add(error.index, str(error)) for error in errors]
        if any(new):
            tally.write(self.folder.path / "unreadable_images.txt")
            tally.check(self.folder.path / "unreadable_images.txt")


def network_facts(classifier: Classifier) -> dict[str, Any]:
    """What `run.json` says of the network."""
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
