"""What a pretraining run says while it works: records for `metrics.jsonl`, and one line for people."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from disco_zoo.core.console import StepProgress, console
from disco_zoo.training.monitoring.data_wait import WORTH_A_WORD
from disco_zoo.training.monitoring.health_report import collapse_line, health_records
from disco_zoo.training.monitoring.metric_logger import MetricLogger
from disco_zoo.training.monitoring.online_health import collapsed
from disco_zoo.training.position import Position


class RunLog:
    """Writes a record where one is due.

    Args:
        position: of the run; it moves on while this object lives.
        images_per_step: over all processes.
        remedy: what to type against waiting for data; told once.
    """

    def __init__(
        self,
        metrics: MetricLogger,
        progress: StepProgress,
        position: Position,
        images_per_step: int,
        remedy: Callable[[], str],
    ) -> None:
        self.metrics, self.progress, self.position = metrics, progress, position
        self.images_per_step, self.remedy = images_per_step, remedy
        self._figures = self._knn_text = self._health_text = ""
        self._before = (position.seconds, position.data_wait_seconds)
        self._records = 0
        self._told = self._collapse_told = False

    def step(self, epoch: int, losses: dict[str, Tensor], lr: float, image_size: int | None = None) -> None:
        """Record the step that was just taken, with the student's image size where that changes; reads the losses."""
        position, values = self.position, {name: value.item() for name, value in losses.items()}
        speed = position.step * self.images_per_step / max(position.seconds, 1e-9)
        share = self._data_wait_share()
        size = {} if image_size is None else {"image_size": image_size}
        self.metrics.log(
            {
                "step": position.step,
                "epoch": epoch,
                **values,
                "lr": lr,
                **size,
                "images_per_s": speed,
                "data_wait_share": share,
            }
        )
        waiting = f", {share:.0%} waiting for data" if share > WORTH_A_WORD else ""
        self._figures = f"{speed:.0f} images/s, loss {values['loss']:.3f}{waiting}"
        self._show()
        self._records += 1
        # Before the first record workers start and caches fill.
        if share > WORTH_A_WORD and self._records > 1 and not self._told:
            self._told = True
            console.print(f"{share:.0%} of the time is spent waiting for data. {self.remedy()}", soft_wrap=True)

    def knn(self, epoch: int, top1: float) -> None:
        """Record an online evaluation, in percent."""
        self.metrics.log({"step": self.position.step, "epoch": epoch, "knn20_top1": top1})
        self._knn_text = f", kNN {top1:.1f} %"
        self._show()

    def health(self, epoch: int, figures: dict[str, float]) -> None:
        """Record what was seen without labels; a collapse is said once. Processes without figures do nothing."""
        if not figures:
            return
        step, fallen = self.position.step, collapsed(figures, health_records(self.metrics.path.parent))
        self.metrics.log({"step": step, "epoch": epoch, **figures, **({"collapsed": fallen} if fallen else {})})
        agreement = f", CKA {figures['cka']:.2f}" if "cka" in figures else ""
        self._health_text = f", rank {figures['student_rank']:.0f}/{figures['student_rank_bound']}{agreement}"
        self._show()
        if fallen and not self._collapse_told:
            self._collapse_told = True
            console.print(collapse_line(figures, fallen, step), soft_wrap=True)

    def _show(self) -> None:
        texts = self._figures + self._knn_text + self._health_text
        self.progress.advance(self.position.step, texts.removeprefix(", "))

    def _data_wait_share(self) -> float:
        """Since the last record, of the time spent training."""
        now = (self.position.seconds, self.position.data_wait_seconds)
        passed, waited = (new - old for new, old in zip(now, self._before, strict=True))
        self._before = now
        return round(min(1.0, waited / max(passed, 1e-9)), 4)
