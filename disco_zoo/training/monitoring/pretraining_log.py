"""The records of a pretraining: losses and speed, kNN, and figures measured without labels."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from disco_zoo.core.console import console
from disco_zoo.training.monitoring.data_wait import WORTH_A_WORD
from disco_zoo.training.monitoring.health_report import collapse_line, health_records
from disco_zoo.training.monitoring.online_health import collapsed
from disco_zoo.training.monitoring.run_log import RunLog


class PretrainingLog:
    """Writes a record where one is due.

    Args:
        images_per_step: over all processes.
        remedy: gives the command that reduces waiting for data; printed once.
    """

    def __init__(self, log: RunLog, images_per_step: int, remedy: Callable[[], str]) -> None:
        self.log, self.position = log, log.position
        self.images_per_step, self.remedy = images_per_step, remedy
        self._before = (self.position.seconds, self.position.data_wait_seconds)
        self._records = 0
        self._told = self._collapse_told = False

    def step(self, epoch: int, losses: dict[str, Tensor], lr: float, image_size: int | None = None) -> None:
        """Record the step that was just taken, with the student's image size where that changes; reads the losses."""
        values = {name: value.item() for name, value in losses.items()}
        speed, share = self.position.images_per_s(self.images_per_step), self._data_wait_share()
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

    def _data_wait_share(self) -> float:
        """Since the last record, of the time spent training."""
        now = (self.position.seconds, self.position.data_wait_seconds)
        passed, waited = (new - old for new, old in zip(now, self._before, strict=True))
        self._before = now
        return round(min(1.0, waited / max(passed, 1e-9)), 4)
