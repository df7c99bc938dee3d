"""The records of a pretraining: losses and speed, online kNN, and figures measured without labels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from disco_zoo.core.console import console
from disco_zoo.core.random_streams import stream_generator
from disco_zoo.data.dataset import ImageSource
from disco_zoo.evaluation.measure import knn_top1_of, shared_features
from disco_zoo.models.encoder import Encoder
from disco_zoo.training.monitoring.data_wait import WORTH_A_WORD
from disco_zoo.training.monitoring.online_health import collapse_line, collapsed, health_records
from disco_zoo.training.task import RunLog

K = 20


class OnlineKnn:
    """Weighted kNN (k = 20, T = 0.07) from part of the training split to part of the test split.

    All processes of a run call it together.

    Args:
        train, test: labelled sources.
        num_images: at most this many of each, drawn by `seed`: the same in every epoch and every run.
        image_size, resize_size: in pixels, see `eval_transform`: the same throughout, also while the student trains
            at other sizes.
    """

    def __init__(
        self,
        train: ImageSource,
        test: ImageSource,
        *,
        num_images: int,
        seed: int,
        image_size: int,
        resize_size: int | None,
    ) -> None:
        self.train, self.test, self.image_size, self.resize_size = train, test, image_size, resize_size
        self.train_indices = _some(len(train), num_images, seed)
        self.test_indices = _some(len(test), num_images, seed)

    def __call__(self, student: Encoder, device: torch.device | str = "cpu") -> float:
        """Top-1 in percent; leaves the student's mode and all random state as they were."""
        bank, queries = (
            shared_features(
                student.backbone,
                source,
                image_size=self.image_size,
                resize_size=self.resize_size,
                mean=student.mean,
                std=student.std,
                device=device,
                indices=indices,
            )
            for source, indices in ((self.train, self.train_indices), (self.test, self.test_indices))
        )
        k = min(K, len(bank))
        return knn_top1_of(bank, queries, (k,))[k]


def _some(total: int, wanted: int, seed: int) -> list[int]:
    order = torch.randperm(total, generator=stream_generator("online_knn", seed))
    return sorted(order[:wanted].tolist())


class PretrainingLog:
    """Writes a record where one is due.

    Args:
        images_per_step: over all processes.
        remedy: gives the command that reduces waiting for data; printed once.
    """

    def __init__(self, log: RunLog, images_per_step: int, remedy: Callable[[], str]) -> None:
        self.log, self.position = log, log.position
        self.images_per_step, self.remedy = images_per_step, remedy
        self._records = 0
        self._told = self._collapse_told = False

    def step(self, epoch: int, losses: dict[str, Tensor], lr: float, image_size: int | None = None) -> None:
        """Record the step that was just taken, with the student's image size where that changes; reads the losses."""
        values = {name: value.item() for name, value in losses.items()}
        passed = self.log.since_last_step
        speed, share = passed.images_per_s(self.images_per_step), round(passed.data_wait_share, 4)
        size = {} if image_size is None else {"image_size": image_size}
        waiting = f", {share:.0%} waiting for data" if share > WORTH_A_WORD else ""
        self.log.step(
            {"epoch": epoch, **values, "lr": lr, **size, "images_per_s": speed, "data_wait_share": share},
            f"{speed:.0f} images/s, loss {values['loss']:.3f}{waiting}",
        )
        self._records += 1
        # Before the first record workers start and caches fill.
        if share > WORTH_A_WORD and self._records > 1 and not self._told:
            self._told = True
            console.print(f"{share:.0%} of the time is spent waiting for data. {self.remedy()}", soft_wrap=True)

    def knn(self, epoch: int, top1: float) -> None:
        """Record an online evaluation, in percent."""
        self.log.evaluation("knn", {"epoch": epoch, "knn20_top1": top1}, f"kNN {top1:.1f} %")

    def health(self, epoch: int, figures: dict[str, float]) -> None:
        """Record figures measured without labels; warn once of a collapse. Processes without figures do nothing."""
        if not figures:
            return
        step, fallen = self.position.step, collapsed(figures, health_records(self.log.metrics.path.parent))
        agreement = f", CKA {figures['cka']:.2f}" if "cka" in figures else ""
        self.log.evaluation(
            "health",
            {"epoch": epoch, **figures, **({"collapsed": fallen} if fallen else {})},
            f"rank {figures['student_rank']:.0f}/{figures['student_rank_bound']}{agreement}",
        )
        if fallen and not self._collapse_told:
            self._collapse_told = True
            console.print(collapse_line(figures, fallen, step), soft_wrap=True)
