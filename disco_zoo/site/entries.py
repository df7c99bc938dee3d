"""What the page shows of a checkpoint: plain values for its script, the card as HTML, measured CPU latencies."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from disco_zoo.errors import BadData
from disco_zoo.zoo import facts
from disco_zoo.zoo.catalog import Catalog, Checkpoint
from disco_zoo.zoo.choice import weights_text
from disco_zoo.zoo.facts import SUBJECTS, metric_title
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


def card(row: Checkpoint, catalog: Catalog) -> str:
    """The card as an article whose id is the checkpoint's name."""
    name = html.escape(row.name)
    get = facts.get_command(row, catalog)
    load = facts.load_lines(row, catalog) if row.weights.source != "none" else []
    again = [row.reproduce_command] if row.reproduce_command else []
    training = facts.training_facts(row, catalog)
    model = {
        "Input": facts.input_text(row.input),
        "Features": f"{catalog.architectures[row.architecture].feature_dim} numbers an image",
        "State of the weights": weights_text(row, catalog),
    }
    parts = [
        f'<article id="{name}"><h3>{name}</h3><p>{html.escape(row.summary)}.</p>',
        _code("Get the weights", [get] if get else []),
        _code("Load", load),
        _code("Without this package", ["import timm", hub] if (hub := facts.hub_line(row, catalog)) else []),
        _code("Train it again", again),
        _facts("Model", {key: text for key, text in (training | model).items() if key != "Again"}),
        _measured(row, catalog),
        _reported(row),
        _facts("Licences", facts.licence_facts(row, catalog)),
        _list("Limits", facts.limits(row, catalog)),
        _list("Papers", [paper.reference for paper in facts.citations(row, catalog)]),
        "</article>",
    ]
    return "".join(parts)


def _text(text: str) -> str:
    """Escaped, with the Markdown of the facts (backticks, *emphasis*) and addresses as HTML."""
    text = html.escape(text)
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", text)
    text = re.sub(r"\*([\w-]+)\*", r"<em>\1</em>", text)
    return re.sub(r"(https?://[^\s<>&]+[^\s<>&.,;)])", r'<a href="\1" rel="noreferrer">\1</a>', text)


def _code(title: str, lines: Sequence[str]) -> str:
    if not lines:
        return ""
    text = html.escape("\n".join(lines))
    button = '<button class="copy" type="button">Copy</button>'
    return f'<h4>{html.escape(title)}</h4><div class="code"><pre>{text}</pre>{button}</div>'


def _facts(title: str, values: Mapping[str, str]) -> str:
    lines = "".join(f"<dt>{html.escape(key)}</dt><dd>{_text(text)}</dd>" for key, text in values.items() if text)
    return f"<h4>{html.escape(title)}</h4><dl>{lines}</dl>"


def _list(title: str, lines: Sequence[str]) -> str:
    if not lines:
        return ""
    return f"<h4>{html.escape(title)}</h4><ul>{''.join(f'<li>{_text(line)}</li>' for line in lines)}</ul>"


def _measured(row: Checkpoint, catalog: Catalog) -> str:
    if not row.measured:
        return ""
    metrics, lines = facts.figure_cells(row)
    head = "".join(f'<th scope="col">{html.escape(metric_title(metric))}</th>' for metric in metrics)
    body = "".join(
        f'<tr><th scope="row">{html.escape(SUBJECTS[subject])}</th>'
        + "".join(f'<td class="number">{html.escape(cell or "-")}</td>' for cell in cells)
        + "</tr>"
        for subject, cells in lines
    )
    table = f'<div class="scroll"><table><thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    how = {key.capitalize(): "; ".join(values) for key, values in facts.measured_facts(row).items()}
    remark = f"<p>{html.escape(facts.measured_remark(row, catalog))}</p>"
    return f"<h4>Measured by this code</h4>{table}{remark}{_facts('How it was measured', how)}"


def _reported(row: Checkpoint) -> str:
    lines = [
        f"{metric_title(figure.metric)}: {figure.value:.1f}, {'verified' if figure.verified else 'not verified'}; "
        f"{figure.source}" + (f"; {figure.note}" if figure.note else "")
        for figure in row.reported
    ]
    return _list("Reported by others, not measured here", lines)


@dataclass(frozen=True)
class Latencies:
    """Milliseconds a picture by ONNX Runtime, by architecture, and what they were taken on."""

    milliseconds: dict[str, float]
    note: str


def read_latencies(path: Path) -> Latencies:
    """Read the file.

    Raises:
        BadData: it is not there, or no such file.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        milliseconds = {row["model"]: float(row["onnx"]["median_ms"]) for row in values["rows"]}
        return Latencies(milliseconds, str(values.get("note", "")))
    except OSError as error:
        raise BadData(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadData(f"{path} holds no latencies. Make it by: disco-zoo export --table --json > {path}") from error
