"""A checkpoint as plain values, for the script of the page and for its table."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from disco_zoo.zoo.availability import weights_text
from disco_zoo.zoo.catalog import Catalog, Checkpoint
from disco_zoo.zoo.licences import is_commercial, spdx_of
from disco_zoo.zoo.papers import METHOD_TITLES

SUPERVISION = {
    "supervised": "trained with labels",
    "self-supervised": "self-supervised",
    "unknown": "supervision unknown",
    "none": "no teacher",
}
METRICS = ("linear_top1", "knn20_top1")


@dataclass(frozen=True)
class Entry:
    """A row of the catalog and what the page filters, sorts and draws it by."""

    row: Checkpoint
    values: dict[str, Any]


def entry_of(row: Checkpoint, catalog: Catalog, latency_ms: float | None) -> Entry:
    """The values of one checkpoint; `latency_ms` of its architecture, None where nobody measured it."""
    architecture = catalog.architectures[row.architecture]
    teacher = catalog.teachers[row.teacher] if row.teacher else None
    values: dict[str, Any] = {
        "name": row.name,
        "architecture": row.architecture,
        "method": METHOD_TITLES[row.method],
        "teacher": row.teacher or "none",
        "supervision": teacher.supervision if teacher else "none",
        "data": row.data,
        "dataTitle": catalog.datasets[row.data].title,
        "measuredOn": catalog.measured_on(row).name,
        "measuredOnTitle": catalog.measured_on(row).title,
        "params": architecture.params_millions,
        "px": row.input.size,
        "latency": latency_ms,
        "licence": spdx_of(row)["weights"],
        "weights": weights_text(row, catalog, short=True),
        "loadable": row.weights.loadable,
        "commercial": is_commercial(row),
        "figures": {metric: figure for metric in METRICS if (figure := figure_of(row, metric)) is not None},
    }
    words = (row.summary, architecture.paper_name, architecture.native or "", teacher.title if teacher else "")
    words = (*(values[key] for key in ("name", "method", "teacher", "dataTitle")), *words)
    values["text"] = " ".join(words).lower()
    return Entry(row, values)


def figure_of(row: Checkpoint, metric: str) -> dict[str, Any] | None:
    """What was measured here, else what was reported; None without either."""
    if measured := row.figure("student", metric):
        spread = f" ± {measured.std:.1f}" if measured.std else ""
        text = f"{measured.mean:.1f}{spread}"
        return {"value": measured.mean, "std": measured.std, "kind": "measured", "text": text}
    if reported := row.reported_figure(metric):
        kind = "reported" if reported.verified else "unverified"
        return {"value": reported.value, "std": None, "kind": kind, "text": f"{reported.value:.1f}"}
    return None


def figure_html(figure: Mapping[str, Any]) -> str:
    """As the table of `disco-zoo list` writes it: (66.5?) for what is reported and not verified."""
    marks = {"measured": "{}", "reported": "({})", "unverified": "({}?)"}
    text = marks[figure["kind"]].format(figure["text"])
    return f'<span class="{figure["kind"]}">{html.escape(text)}</span>'
