"""The verdict: this run's figures against the catalog's, allowing for the differences between seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from disco_zoo.zoo.schema import Checkpoint, Measured

Outcome = Literal["reproduced", "not reproduced", "not judged"]


@dataclass(frozen=True)
class Comparison:
    """One figure of this run against the catalog's, in percent and points."""

    subject: str
    metric: str
    value: float
    expected: float
    allowed_difference: float

    @property
    def difference(self) -> float:
        return self.value - self.expected

    @property
    def holds(self) -> bool:
        return abs(self.difference) <= self.allowed_difference


@dataclass(frozen=True)
class Verdict:
    """The outcome and every comparison behind it; `why` says what "not judged" rests on."""

    outcome: Outcome
    comparisons: list[Comparison]
    why: str

    @property
    def exit_code(self) -> int:
        """0 when reproduced or not judged, 1 when not reproduced."""
        return 1 if self.outcome == "not reproduced" else 0


def judge(checkpoint: Checkpoint, figures: dict[str, dict[str, float]], *, why_not: str = "") -> Verdict:
    """Compare the student's figures with the catalog's.

    Only the student decides: start, baseline and teacher stand beside it for scale.

    Args:
        figures: percent by subject and metric.
        why_not: a reason not to judge at all, e.g. a shortened run.
    """
    comparisons = [
        Comparison("student", entry.metric, figures["student"][entry.metric], entry.mean, allowed)
        for entry, allowed in _judgeable(checkpoint)
        if entry.metric in figures.get("student", {})
    ]
    if why_not:
        return Verdict("not judged", comparisons, why_not)
    if not comparisons:
        return Verdict("not judged", [], "the catalog has no figures from three seeds or more")
    failed = [c for c in comparisons if not c.holds]
    if failed:
        worst = max(failed, key=lambda c: abs(c.difference) - c.allowed_difference)
        return Verdict(
            "not reproduced",
            comparisons,
            f"{worst.metric} is {worst.difference:+.1f} points off, {worst.allowed_difference:.1f} are allowed",
        )
    return Verdict("reproduced", comparisons, "all figures of the student lie within the allowed difference")


def _judgeable(checkpoint: Checkpoint) -> list[tuple[Measured, float]]:
    entries = [(entry, entry.allowed_difference) for entry in checkpoint.measured if entry.subject == "student"]
    return [(entry, allowed) for entry, allowed in entries if allowed is not None]
