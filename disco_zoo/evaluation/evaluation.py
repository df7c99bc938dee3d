"""The result of `disco-zoo evaluate`: figures and everything that determines them, as JSON for cards and tables."""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from disco_zoo.core.claimed_dir import FACTS, read_json
from disco_zoo.core.environment import hardware, hardware_line, now, versions
from disco_zoo.core.files import require_folder, user_path, write_out
from disco_zoo.errors import BadRunFolder
from disco_zoo.evaluation.metrics import CONFIDENCE, wilson_interval
from disco_zoo.evaluation.subject import Subject
from disco_zoo.zoo.catalog import load_catalog
from disco_zoo.zoo.schema import Measured


@dataclass(frozen=True)
class Evaluation:
    """Figures of one model by one protocol.

    Attributes:
        task: "knn", "linear", "semi" or "transfer".
        preset: name of the protocol with what is not as in the paper, e.g. `disco@10ep`.
        protocol: the same in words; tables put figures side by side only where these are equal.
        subject: the model, and the images that were used.
        figures: accuracies in percent by metric (`knn20_top1`, `linear_top1`, `linear_last_top1`, ...).
        num_scored: test images behind the figures.
        details: what else was found (epochs, the chosen k, a sweep), and everything that fixes the protocol.
        unreadable: one message for each image that is not part of the figures.
        seconds: it took.
    """

    task: str
    preset: str
    protocol: str
    subject: Subject
    figures: dict[str, float]
    num_scored: int
    seed: int
    seconds: float
    details: dict[str, Any] = field(default_factory=dict)
    unreadable: tuple[str, ...] = ()

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % confidence interval of each figure, see `CONFIDENCE`."""
        return {metric: wilson_interval(value, self.num_scored) for metric, value in self.figures.items()}

    def as_json(self, command: str) -> dict[str, Any]:
        """All of it as plain values; `measured` are rows of the catalog's schema."""
        return {
            "task": self.task,
            "preset": self.preset,
            "protocol": self.protocol,
            "model": self.subject.model_facts(),
            "data": self.subject.data_facts(),
            "input": self.subject.input_facts(),
            "figures": self.figures,
            "intervals": {metric: list(limits) for metric, limits in self.intervals.items()},
            "confidence": CONFIDENCE,
            "num_scored": self.num_scored,
            "look": self.subject.is_look,
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "details": self.details,
            "unreadable": list(self.unreadable),
            "measured": [json.loads(row.model_dump_json()) for row in self.measured(command)],
            "command": command,
            "date": now(),
            "hardware": hardware(self.subject.bench.device),
            "versions": versions(),
        }

    def measured(self, command: str) -> list[Measured]:
        """Rows for a card; none of random weights or of a look, which the catalog has no place for."""
        if self.subject.untrained or self.subject.is_look:
            return []
        common = {
            "subject": _card_subject(self.subject.name),
            "seeds": [self.seed],
            "protocol": self.protocol,
            "command": command,
            "hardware": hardware_line(self.subject.bench.device),
            "date": datetime.date.today(),
        }
        return [
            Measured.model_validate({"metric": metric, "values": [round(value, 2)], **common})
            for metric, value in self.figures.items()
        ]


def write_evaluation(values: dict[str, Any], path: Path) -> None:
    """Write the JSON atomically.

    Raises:
        CannotWrite: no permission, no room, or a file where a folder should be.
    """
    text = json.dumps(values, indent=1, ensure_ascii=False) + "\n"
    write_out(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def require_writable(path: Path, *, write_over: bool) -> None:
    """Find out before the long work whether the result can be written.

    Raises:
        BadRunFolder: a file is there already.
        CannotWrite: no permission, no room, or a file where a folder should be.
    """
    if path.exists() and not write_over:
        raise BadRunFolder(f"{path} is there already. Choose another --out, or add --yes to write over it")
    require_folder(path.parent)


def _card_subject(model: str) -> str:
    """The subject of a card's figures: a teacher, the start of a recipe (`train --start-only`), or a student."""
    if model in load_catalog().teachers:
        return "teacher"
    facts = read_json(user_path(model) / FACTS)
    return "start" if facts.get("steps") == 0 else "student"
