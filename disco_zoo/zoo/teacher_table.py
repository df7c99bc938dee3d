"""The zoo's teachers as a table: for a terminal, for a pipe, as JSON."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from disco_zoo.zoo.catalog import Catalog, Teacher
from disco_zoo.zoo.choice import has_network, weights_text
from disco_zoo.zoo.licences import is_commercial, spdx_of
from disco_zoo.zoo.table import FIGURES_LEGEND, LINEAR_METRIC, aligned, figure_text

HEADINGS = ("name", "supervision", "network", "epochs", "data", "linear", "licence", "weights")
# What a narrow terminal does without.
SPARE = ("network", "data")
LEGEND = (
    f"{FIGURES_LEGEND}\nLicence is that of the weights. Type `disco-zoo download NAME` for an official file "
    "(`disco-zoo show NAME` says how to install a pip package), then `--set teacher.source=NAME` in a recipe."
)


def as_json(teacher: Teacher, catalog: Catalog, installed: Collection[str] = ()) -> dict[str, Any]:
    """The catalog's row as plain values, with the state of its weights and the students distilled from it."""
    students = [row.name for row in catalog.checkpoints.values() if row.teacher == teacher.name]
    state = weights_text(teacher, catalog, installed)
    return teacher.model_dump(mode="json") | {
        "weights_state": state,
        "spdx": spdx_of(teacher),
        "commercial": is_commercial(teacher),
        "students": students,
    }


def render_plain(teachers: list[Teacher], catalog: Catalog, installed: Collection[str] = ()) -> str:
    """One line a teacher, in columns as wide as their content."""
    return aligned([HEADINGS, *(_cells(teacher, catalog, installed, short=False) for teacher in teachers)])


def print_for_terminal(
    teachers: list[Teacher], catalog: Catalog, installed: Collection[str] = (), width: int | None = None
) -> None:
    """Print the table; `width` in columns, None for the terminal's."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=width, highlight=False)
    cells = [_cells(teacher, catalog, installed, short=True) for teacher in teachers]
    widths = [max(map(len, column)) for column in zip(HEADINGS, *cells, strict=True)]
    fits = sum(widths) + 2 * len(widths) <= console.width
    kept = [i for i, heading in enumerate(HEADINGS) if fits or heading not in SPARE]
    table = Table.grid(padding=(0, 2, 0, 0))
    for i in kept:
        table.add_column(overflow="fold", justify="right" if HEADINGS[i] in ("epochs", "linear") else "left")
    table.add_row(*(Text(HEADINGS[i], style="bold") for i in kept))
    for line in cells:
        table.add_row(*(Text(line[i], style="cyan" if i == 0 else "") for i in kept))
    console.print(table)
    console.print(Text(f"\n{LEGEND}", style="dim"))


def _cells(teacher: Teacher, catalog: Catalog, installed: Collection[str], *, short: bool) -> tuple[str, ...]:
    return (
        teacher.name,
        teacher.supervision,
        catalog.network_of(teacher) if has_network(teacher, catalog) else "-",
        str(teacher.epochs or "-"),
        teacher.data or "-",
        figure_text(teacher, LINEAR_METRIC),
        teacher.licence.partition(" (")[0],
        weights_text(teacher, catalog, installed, short=short),
    )
