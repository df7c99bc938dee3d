"""Text of the figures measured without labels: a section of report.md, facts for run.json, a warning of collapse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from disco_zoo.training.monitoring.metric_logger import read_metrics
from disco_zoo.training.monitoring.online_health import EARLY_STEPS, OnlineHealth

TITLES = {
    "student_rank": "effective rank of the student's features",
    "embedding_rank": "effective rank of its head's embeddings",
    "teacher_rank": "effective rank of the teacher's features",
    "cka": "CKA of the student's features with the teacher's",
    "cosine": "cosine to the teacher",
}
HOW_TO_READ = (
    "In a healthy training the ranks rise well above those of a random start, to tens or hundreds, and stay there "
    "while cosine and CKA to a teacher rise, though in the first hundred steps each of them may fall for a while; in a "
    "collapsed one a rank falls to about 1, for all images look alike to the student."
)


def health_records(folder: Path) -> list[dict[str, Any]]:
    """The records of a run folder that hold figures measured without labels, in order."""
    return [row for row in read_metrics(folder) if "student_rank" in row]


def health_facts(folder: Path, health: OnlineHealth | None) -> dict[str, Any] | None:
    """The last figures, with the images they are of; None where none were measured."""
    records = health_records(folder)
    return {**health.images, **records[-1]} if health is not None and records else None


def collapse_line(figures: Mapping[str, float], fallen: Sequence[str], step: int) -> str:
    """The warning printed when the effective ranks named in `fallen` are close to 1."""
    ranks = " and ".join(f"the {TITLES[name]} is {figures[name]:.2f}" for name in fallen)
    return (
        f"The student has collapsed at step {step}: {ranks}, where 1 is all images alike. "
        "Stop, and start again with a lower optim.base_lr, or with another method, and another --out"
    )


def health_lines(folder: Path, facts: Mapping[str, Any]) -> list[str]:
    """The section "Is it working?" in Markdown; no lines for a run without such figures.

    Args:
        facts: of run.json.
    """
    records, images = health_records(folder), facts.get("health")
    if not records or images is None:
        return []
    shown = _shown(records)
    head = [_column(row["step"], records) for row in shown]
    lines = ["", "## Is it working?", "", f"| without labels | {' | '.join(head)} | at most |"]
    lines.append(f"|---|{'---:|' * (len(head) + 1)}")
    for name, title in TITLES.items():
        if name in records[-1]:
            values = " | ".join(_number(row.get(name)) for row in shown)
            lines.append(f"| {title} | {values} | {records[-1].get(f'{name}_bound', 1)} |")
    seen = "test images, which training does not see" if images["split"] == "test" else "training images"
    lines += ["", f"Of {images['images']} {seen}, without augmentation. {HOW_TO_READ}"]
    collapses = [row["step"] for row in records if "collapsed" in row]
    if collapses:
        lines += ["", f"**The student collapsed: seen first at step {collapses[0]}, last at step {collapses[-1]}.**"]
    return lines


def _shown(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first record, the last one within the first hundred steps, and the last of all."""
    early = [row for row in records[1:-1] if row["step"] <= EARLY_STEPS[-1]]
    return [records[0], *early[-1:], *records[1:][-1:]]


def _column(step: int, records: Sequence[Mapping[str, Any]]) -> str:
    if step == 0:
        return "start"
    return f"end, step {step}" if step == records[-1]["step"] else f"step {step}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
