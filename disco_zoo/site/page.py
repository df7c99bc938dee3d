"""The zoo as one HTML file: a table, a chart and a card for each checkpoint, from the catalog alone.

The chart is drawn as SVG by a short script in the page. A plotting library in its place would be a megabyte and more
for some fifty points, and its marks could not be reached by the keyboard.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from disco_zoo.errors import counted
from disco_zoo.site.entries import SUPERVISION, Entry, Latencies, card, entry_of, figure_html
from disco_zoo.zoo.catalog import Catalog, Checkpoint
from disco_zoo.zoo.facts import data_text
from disco_zoo.zoo.table import FIGURES_LEGEND

FOLDER = Path(__file__).parent
# Heading, whether it holds numbers, whether a narrow screen does without it.
COLUMNS = (
    ("name", False, False),
    ("method", False, True),
    ("teacher (its supervision)", False, True),
    ("data", False, True),
    ("params (M)", True, False),
    ("px", True, True),
    ("kNN (%)", True, False),
    ("linear (%)", True, False),
    ("CPU (ms)", True, True),
    ("licence", False, True),
    ("weights", False, True),
)
FILTERS = {
    "architecture": "Architecture",
    "method": "Method",
    "supervision": "Teacher",
    "data": "Data",
    "licence": "Licence (SPDX)",
    "weights": "Weights",
}


def base_style() -> str:
    """The look that all pages share, as CSS."""
    return (FOLDER / "base.css").read_text(encoding="utf-8")


def render_page(
    rows: Sequence[Checkpoint], catalog: Catalog, *, title: str = "The zoo", latencies: Latencies | None = None
) -> str:
    """One page that needs no other file and no network.

    Args:
        rows: The checkpoints, in the order of the table.
        catalog: For architectures, teachers and data.
        title: Above the page.
        latencies: For the chart and the table; None for none.
    """
    milliseconds = latencies.milliseconds if latencies else {}
    entries = [entry_of(row, catalog, milliseconds.get(row.architecture)) for row in rows]
    columns = [column for column in COLUMNS if milliseconds or column[0] != "CPU (ms)"]
    measured = sum(bool(row.measured) for row in rows)
    note = (
        f"{counted(len(rows), 'checkpoint')} of small self-supervised vision backbones, {measured} of them with "
        "figures that this code measured. Generated from the catalog by disco-zoo site."
    )
    loadable = sum(entry.values["loadable"] for entry in entries)
    return Template((FOLDER / "page.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(title),
        note=html.escape(note),
        style=base_style() + (FOLDER / "page.css").read_text(encoding="utf-8"),
        filters="\n".join(_select(key, name, entries) for key, name in FILTERS.items()),
        count=html.escape(f"{counted(len(rows), 'checkpoint')}, {loadable} with weights to load now"),
        headings="".join(_heading(*column) for column in columns),
        lines="\n".join(_line(entry, columns) for entry in entries),
        legend=html.escape(f"{FIGURES_LEGEND}{f' CPU (ms): {latencies.note}' if latencies else ''}"),
        cards="\n".join(card(entry.row, catalog) for entry in entries),
        data=_for_script([entry.values for entry in entries]),
        script=(FOLDER / "page.js").read_text(encoding="utf-8"),
    )


def _for_script(values: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(values, separators=(",", ":")).replace("<", "\\u003c").replace("\u2028", "\\u2028")


def _select(key: str, name: str, entries: Sequence[Entry]) -> str:
    values = sorted({entry.values[key] for entry in entries})
    titles = {entry.values["data"]: entry.values["dataTitle"] for entry in entries} if key == "data" else SUPERVISION
    options = "".join(
        f'<option value="{html.escape(value)}">{html.escape(titles.get(value, value))}</option>' for value in values
    )
    return f'<label>{html.escape(name)}<select name="{key}"><option value="">all</option>{options}</select></label>'


def _heading(name: str, number: bool, spare: bool) -> str:
    return f'<th scope="col" class="{_classes(number, spare)}"><button type="button">{html.escape(name)}</button></th>'


def _line(entry: Entry, columns: Sequence[tuple[str, bool, bool]]) -> str:
    values = entry.values
    name = html.escape(values["name"])
    figures = values["figures"]
    teacher = f"{values['teacher']} ({SUPERVISION[values['supervision']]})" if entry.row.teacher else "none"
    cells: dict[str, tuple[Any, str]] = {
        "name": (values["name"], f'<a href="#{name}">{_breakable(name)}</a>'),
        "method": (values["method"], html.escape(values["method"])),
        "teacher (its supervision)": (teacher, html.escape(teacher)),
        "data": (values["dataTitle"], html.escape(data_text(values["dataTitle"], values["measuredOnTitle"]))),
        "params (M)": (values["params"], f"{values['params']:.1f}"),
        "px": (values["px"], str(values["px"])),
        "kNN (%)": _figure_cell(figures.get("knn20_top1")),
        "linear (%)": _figure_cell(figures.get("linear_top1")),
        "CPU (ms)": (values["latency"] or "", f"{values['latency']:.1f}" if values["latency"] else "-"),
        "licence": (values["licence"], html.escape(values["licence"])),
        "weights": (values["weights"], html.escape(values["weights"])),
    }
    made = "".join(_cell(*cells[heading], heading, number, spare) for heading, number, spare in columns)
    return f'<tr data-name="{name}">{made}</tr>'


def _breakable(name: str) -> str:
    """A name that may be broken after its architecture and between the words of its tag."""
    return name.replace(".", ".<wbr>").replace("_", "_<wbr>")


def _figure_cell(figure: Mapping[str, Any] | None) -> tuple[Any, str]:
    return ("", "-") if figure is None else (figure["value"], figure_html(figure))


def _cell(value: Any, text: str, heading: str, number: bool, spare: bool) -> str:
    classes = "name" if heading == "name" else _classes(number, spare)
    return f'<td class="{classes}" data-v="{html.escape(str(value))}">{text}</td>'


def _classes(number: bool, spare: bool) -> str:
    return " ".join(name for name, there in (("number", number), ("spare", spare)) if there)
