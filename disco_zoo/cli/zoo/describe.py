"""Everything about one checkpoint or teacher: for a terminal, for a pipe, and as JSON. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from disco_zoo.errors import BadTeacher, Damaged, MissingExtra
from disco_zoo.weights import store
from disco_zoo.weights.store import Installed
from disco_zoo.zoo import facts as model_facts
from disco_zoo.zoo import lite_wheels
from disco_zoo.zoo import table as zoo_table
from disco_zoo.zoo.catalog import Catalog
from disco_zoo.zoo.choice import weights_text
from disco_zoo.zoo.facts import metric_title, plain
from disco_zoo.zoo.schema import Checkpoint, Reported, Teacher, Weights

# Shorter than the cards' titles, for the table to fit 80 columns.
SUBJECTS = {
    "student": "this model",
    "baseline": "MoCo-v2 baseline",
    "start": "before training",
    "teacher": "teacher, same pixels",
    "teacher_own_size": "teacher, own pixels",
    "pixels": "raw pixels",
}


@dataclass(frozen=True)
class Section:
    """A titled part. `lines` are (label, text); `code` is printed as it is, to be copied."""

    title: str
    lines: tuple[tuple[str, str], ...] = ()
    code: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sheet:
    """All that is known of a row: a heading, a sentence, sections without empty ones, and the same as JSON."""

    name: str
    summary: str
    sections: tuple[Section, ...]
    json: dict[str, Any]


def describe(name: str, catalog: Catalog) -> Sheet:
    """Collect what the catalog and the user's own store know of `name`.

    Args:
        name: A checkpoint or teacher, as `Catalog.entry` takes it.

    Raises:
        UnknownName: There is neither.
    """
    row = catalog.entry(name)
    found, fault = _installed(row.name)
    weights = _weights(row, catalog, found, fault)
    if isinstance(row, Teacher):
        sections, summary = _of_teacher(row, catalog, weights), row.title
    else:
        sections, summary = _of_checkpoint(row, catalog, weights, found), row.summary
    kept = tuple(section for section in sections if section.lines or section.code)
    return Sheet(row.name, summary, kept, _as_json(row, catalog, found, fault))


def render_plain(sheet: Sheet) -> str:
    """As text: a label a line, nothing wrapped."""
    blocks = [f"{sheet.name}\n{sheet.summary}"]
    for section in sheet.sections:
        width = max((len(label) for label, _ in section.lines), default=0)
        lines = [f"  {label.ljust(width)}  {text}".rstrip() for label, text in section.lines]
        blocks.append("\n".join([section.title, *lines, *(f"  {line}" for line in section.code)]))
    return "\n\n".join(blocks)


def print_for_terminal(sheet: Sheet, width: int | None = None) -> None:
    """Print with rich; `width` in columns, None for the terminal's."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    console = Console(width=width, highlight=False)
    console.print(Text(sheet.name, style="bold cyan"))
    console.print(Text(sheet.summary))
    for section in sheet.sections:
        console.print()
        console.print(Text(section.title, style="bold"))
        if section.lines:
            grid = Table.grid(padding=(0, 2, 0, 0))
            grid.add_column(style="dim", max_width=30)
            grid.add_column(overflow="fold")
            for label, text in section.lines:
                grid.add_row(label, Text(text))
            console.print(Padding(grid, (0, 0, 0, 2)))
        for line in section.code:
            # Not wrapped by rich: a line to copy must stay one line, whatever the terminal's width.
            console.print(Text(f"  {line}"), soft_wrap=True)


def _of_checkpoint(row: Checkpoint, catalog: Catalog, weights: Section, found: Installed | None) -> list[Section]:
    architecture = catalog.architectures[row.architecture]
    training = model_facts.training_facts(row, catalog)
    model = {
        "Network": model_facts.network_text(row, catalog),
        "Parameters": f"{architecture.params_millions:.2f} M, without a classifier",
        "Features": f"{architecture.feature_dim} numbers an image",
        "Input": model_facts.input_text(row.input),
    }
    train = [row.reproduce_command] if row.reproduce_command else []
    get = model_facts.get_command(row, catalog)
    hub = model_facts.hub_line(row, catalog)
    return [
        _section("Model", model),
        _section("Training", {key: value for key, value in training.items() if key not in ("Student", "Again")}),
        weights,
        _links(row.weights),
        *_measured(row, catalog),
        _reported(row.reported),
        _bullets("Intended use", model_facts.intended_use(row, catalog)),
        _bullets("Limits", model_facts.limits(row, catalog, str(found.path) if found else None)),
        _section("Licences", model_facts.licence_facts(row, catalog)),
        Section("How to get the weights", code=(get,) if get else ()),
        Section("How to load", code=tuple(_load_lines(row, catalog, found))),
        Section("How to load without this package", code=("import timm", hub) if hub else ()),
        Section("How to train it again", code=tuple(train)),
        _citation(row, catalog),
    ]


def _of_teacher(row: Teacher, catalog: Catalog, weights: Section) -> list[Section]:
    facts = {
        "Supervision": row.supervision,
        "Network": row.network or "",
        "Input": model_facts.input_text(row.input) if row.network else "",
        "Embedding": f"{row.embed_dim} numbers, by its self-supervised head" if row.embed_dim else "",
        "Data": catalog.datasets[row.data].title if row.data else "",
        "Epochs": str(row.epochs or ""),
    }
    students = [student.name for student in catalog.checkpoints.values() if student.teacher == row.name]
    get = model_facts.get_command(row, catalog)
    use = f"disco-zoo train RECIPE --set teacher.source={row.name}"
    return [
        _section("Model", facts),
        weights,
        _links(row.weights),
        _reported(row.reported),
        _bullets("Notes", [f"{row.note[0].upper()}{row.note[1:]}."] if row.note else []),
        _section("Licences", model_facts.licence_facts(row, catalog)),
        _bullets("Students distilled from it", students),
        Section("How to get the weights", code=(get,) if get else ()),
        Section("How to distil from it", code=(use,) if get else ()),
        _citation(row, catalog),
    ]


def _weights(row: Checkpoint | Teacher, catalog: Catalog, found: Installed | None, fault: str) -> Section:
    names = [row.name] if found or fault else []
    weights = row.weights
    facts = {"State": weights_text(row, catalog, names)}
    if fault:
        facts["State"] = f"installed, but not usable: {fault}"
    if found:
        facts |= {"Installed": str(found.path), "Installed sha256": found.sha256}
        titles = {"layout": "Converted from", "source_sha256": "Original sha256", "date": "On"}
        facts |= {title: str(found.facts[key]) for key, title in titles.items() if found.facts.get(key)}
    return _section("Weights", facts | _published(weights) | {"Origin": row.origin})


def _published(weights: Weights) -> dict[str, str]:
    """The catalog's facts about the published file."""
    return {
        "File": weights.file or "",
        "Size": f"{weights.size_bytes / 1e6:.1f} MB" if weights.size_bytes else "",
        "sha256": weights.sha256 or "",
        "md5 begins": weights.md5_prefix or "",
        "Repository": weights.repo or "",
        "Commit": weights.revision or "",
    }


def _links(weights: Weights) -> Section:
    """The authors' links, each on a line to be copied."""
    about = (("Read", weights.url_note),) if weights.url_note else ()
    urls = [weights.url] if weights.url else []
    return Section("The authors' links", about, (*urls, *weights.other_urls))


def _measured(row: Checkpoint, catalog: Catalog) -> list[Section]:
    if not row.measured:
        return []
    metrics, rows = model_facts.figure_cells(row)
    # The number of seeds stands below; without it the table fits a narrow terminal.
    cells = [(SUBJECTS[subject], *(re.sub(r" \(.*", "", cell) or "-" for cell in figures)) for subject, figures in rows]
    table = zoo_table.aligned([("", *(_short_title(metric) for metric in metrics)), *cells])
    facts = {key.capitalize(): "; ".join(values) for key, values in model_facts.measured_facts(row).items()}
    facts["Seeds"] = ", ".join(map(str, sorted({seed for figure in row.measured for seed in figure.seeds})))
    facts["Note"] = model_facts.measured_remark(row, catalog)
    return [Section("Measured by this code", code=tuple(table.splitlines())), _section("How it was measured", facts)]


def _short_title(metric: str) -> str:
    """`knn20_top1` -> "kNN 20", `linear_top5` -> "linear top-5"."""
    name, _, top = metric.rpartition("_top")
    name = f"kNN {name[3:]}".rstrip() if name.startswith("knn") else name
    return name if top == "1" else f"{name} top-{top}"


def _reported(figures: list[Reported]) -> Section:
    lines = []
    for figure in figures:
        remark = "verified" if figure.verified else "not verified"
        note = f"; {figure.note}" if figure.note else ""
        lines.append((metric_title(figure.metric), f"{figure.value:.1f}, {remark}: {figure.source}{note}"))
    return Section("Reported by others, not measured here", tuple(lines))


def _citation(row: Checkpoint | Teacher, catalog: Catalog) -> Section:
    lines = [line for paper in model_facts.citations(row, catalog) for line in paper.bibtex.splitlines()]
    return Section("Citation", code=tuple(lines))


def _section(title: str, facts: Mapping[str, str]) -> Section:
    return Section(title, tuple((label, plain(text)) for label, text in facts.items() if text))


def _bullets(title: str, lines: list[str]) -> Section:
    return Section(title, tuple(("-", plain(line)) for line in lines))


def _load_lines(row: Checkpoint, catalog: Catalog, found: Installed | None) -> list[str]:
    return model_facts.load_lines(row, catalog) if found or row.weights.source != "none" else []


def _installed(name: str) -> tuple[Installed | None, str]:
    """The installed weights and their fault ("" for none)."""
    if chosen := lite_wheels.LITES.get(name):
        return _installed_wheel(chosen)
    try:
        return store.installed(name), ""
    except Damaged as error:
        return None, str(error)


def _installed_wheel(chosen: lite_wheels.Lite) -> tuple[Installed | None, str]:
    try:
        return Installed(chosen.name, lite_wheels.weights_file(chosen), chosen.sha256, chosen.timm_name, {}), ""
    except MissingExtra:
        return None, ""
    except BadTeacher as error:
        return None, str(error)


def _as_json(row: Checkpoint | Teacher, catalog: Catalog, found: Installed | None, fault: str) -> dict[str, Any]:
    names = [row.name] if found or fault else []
    common: dict[str, Any] = {
        "get": model_facts.get_command(row, catalog),
        "citation": [paper.bibtex for paper in model_facts.citations(row, catalog)],
        "installed": None,
    }
    if found:
        common["installed"] = {
            "path": str(found.path),
            "sha256": found.sha256,
            "network": found.network,
            **found.facts,
        }
    if fault:
        common["installed"] = {"damaged": fault}
    if isinstance(row, Teacher):
        return {"kind": "teacher"} | zoo_table.teacher_as_json(row, catalog, names) | common
    how = {"load": _load_lines(row, catalog, found), "reproduce": row.reproduce_command}
    return {"kind": "checkpoint"} | zoo_table.as_json(row, catalog, names) | how | common
