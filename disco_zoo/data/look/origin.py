"""Where a source comes from, as facts for messages and for run.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Origin:
    """Where images and labels of a source were found.

    Attributes:
        split: which part of what the user named this is, such as "folder Training"; "" for all of it.
        labels: what the labels were taken from, such as "folders"; "" for none.
        left_out: files that were seen and are no part of the source, by suffix or as "hidden".
        notes: what else was guessed or passed over.
    """

    split: str = ""
    labels: str = ""
    left_out: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
