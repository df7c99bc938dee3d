"""Trains a checkpoint of the zoo again and judges the result: `disco_zoo.reproduce`, with its report.

A report is results.json, pictures, report.md, the card and the table.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.table import Table

from disco_zoo.core.console import duration, stdout_console
from disco_zoo.core.environment import hardware_text
from disco_zoo.core.launcher import num_launched
from disco_zoo.data.open_source import open_source
from disco_zoo.errors import DiscoZooError, UnknownName
from disco_zoo.plotting.embedding_map import plot_embedding_maps
from disco_zoo.reproduction.job import Reproduction, reproduce_choice
from disco_zoo.training.monitoring.online_health import health_lines
from disco_zoo.training.run import RunOptions, run_options
from disco_zoo.training.run_facts import read_run_facts
from disco_zoo.training.train import SHOWN_METRICS, fact_lines, write_curves
from disco_zoo.zoo.catalog import load_catalog
from disco_zoo.zoo.choice import choose_checkpoint, default_out
from disco_zoo.zoo.facts import mean_and_spread
from disco_zoo.zoo.model_card import render_card
from disco_zoo.zoo.papers import METHOD_TITLES
from disco_zoo.zoo.schema import Checkpoint, Measured


def reproduce(
    name: str,
    data: str | None = None,
    out: Path | str | None = None,
    *,
    eval_data: str | None = None,
    overrides: Iterable[str] = (),
    seed: int | None = None,
    device: str = "auto",
    workers: int | None = None,
    resume: bool = False,
    max_steps: int | None = None,
    trackers: Sequence[str] = (),
) -> Reproduction:
    """Train a checkpoint's baseline and student from its recipe, measure all, compare with the catalog.

    Args:
        name: a checkpoint, or the short name of an architecture, e.g. "effb0".
        data: the images of its data set; None for the pocket recipe on the embedded sample.
        out: run folder; None for runs/NAME. It gets the student, report.md, results.json and the card.
        eval_data: labelled images to measure on; None for the test split beside `data`.
        overrides: change the recipe; then the figures are not judged.
        seed: in place of the recipe's; the figures are judged.
        device, workers, resume, max_steps, trackers: as in `disco_zoo.train`.

    Returns:
        Figures in percent by subject and metric, and the verdict.

    Raises:
        DiscoZooError: it cannot be carried out; nothing that was there is lost.
    """
    options = run_options(device, workers, resume, max_steps, "disco_zoo.reproduce(...)", trackers)
    return reproduce_into(None if out is None else Path(out), name, data, eval_data, tuple(overrides), seed, options)


def reproduce_into(
    out: Path | None,
    name: str,
    data: str | None,
    eval_data: str | None,
    overrides: Iterable[str],
    seed: int | None,
    options: RunOptions,
) -> Reproduction:
    """See `reproduce`."""
    if num_launched() > 1:
        raise DiscoZooError(
            "reproduce trains, measures and judges in one process. On several: launch disco-zoo train RECIPE, then "
            "disco-zoo evaluate its run folder"
        )
    try:
        choice = choose_checkpoint(name, data)
    except UnknownName:
        if data is not None:
            open_source(data)  # data that are not there are the likelier mistake, and told first
        raise
    folder = out or default_out(choice.checkpoint.name, options.max_steps)
    rep = reproduce_choice(
        choice, data=data, eval_data=eval_data, out=folder, overrides=overrides, seed=seed, options=options
    )
    try:
        write_reproduction(rep, options.command)
    finally:
        rep.folder.close()
    return rep


def subject_titles(rep: Reproduction) -> dict[str, str]:
    """The rows of the table, in order, as this recipe calls them."""
    recipe = rep.recipe
    size = recipe.eval_size
    own_size = recipe.teacher.image_size if recipe.teacher else None
    supervised = " (supervised)" if rep.teacher and rep.teacher.loaded.supervised else ""
    start = "inherited" if recipe.student.init == "inherit" else recipe.student.init
    titles = {
        "pixels": "raw pixels",
        "start": f"untrained start ({start})",
        "baseline": "MoCo-v2 baseline",
        "student": f"{METHOD_TITLES[recipe.method['name']]} student",
        "teacher": f"teacher{supervised}, {size} px",
        "teacher_own_size": f"teacher{supervised}, {own_size} px",
    }
    return {subject: title for subject, title in titles.items() if subject in rep.figures}


def write_reproduction(rep: Reproduction, command: str) -> None:
    """Write results.json, the pictures, report.md and the card into the run folder."""
    folder = rep.folder
    write_curves(folder, rep.checkpoint.name)
    plot_embedding_maps(
        {subject: rep.test_features[subject].features for subject in ("start", "student")},
        rep.test_features["student"].labels,
        rep.data.bank.class_names,
        folder.figures / "embedding_map.png",
        f"{rep.checkpoint.name}: test features before and after training",
    )
    measured = _measured(rep, command)
    folder.write_json("results.json", rep.as_json())
    card = render_card(
        rep.checkpoint.model_copy(update={"measured": measured}), load_catalog(), weights_file=folder.student.name
    )
    (folder.path / "model_card.md").write_text(card, encoding="utf-8")
    (folder.path / "report.md").write_text(_report(rep, command), encoding="utf-8")


def print_reproduction(rep: Reproduction) -> None:
    """The table and the verdict, on stdout."""
    out = stdout_console()
    table = Table(title=f"{rep.checkpoint.name}, top-1 in percent", title_justify="left")
    table.add_column("features")
    for metric in SHOWN_METRICS.values():
        table.add_column(f"{metric}\nthis run", justify="right")
        table.add_column(f"{metric}\ncatalog", justify="right")
    for row in _rows(rep):
        table.add_row(*row, style="bold" if row[0].endswith(" student") else None)
    out.print(table)
    for line in _verdict_lines(rep):
        out.print(line, soft_wrap=True)


def _measured(rep: Reproduction, command: str) -> list[Measured]:
    common = {
        "seeds": [rep.recipe.seed],
        "protocol": rep.protocol,
        "command": command,
        "hardware": hardware_text(read_run_facts(rep.folder)["hardware"]),
        "date": datetime.date.today(),
    }
    return [
        Measured.model_validate({"subject": subject, "metric": metric, "values": [round(value, 2)], **common})
        for subject, metrics in rep.figures.items()
        for metric, value in metrics.items()
    ]


def _rows(rep: Reproduction) -> list[list[str]]:
    rows = []
    for subject, title in subject_titles(rep).items():
        row = [title]
        for metric in SHOWN_METRICS:
            value = rep.figures[subject].get(metric)
            row += ["–" if value is None else f"{value:.1f}", _catalog_cell(rep.checkpoint, subject, metric)]
        rows.append(row)
    return rows


def _catalog_cell(checkpoint: Checkpoint, subject: str, metric: str) -> str:
    entry = checkpoint.figure(subject, metric)
    return "–" if entry is None else mean_and_spread(entry.mean, entry.std, digits=1)


def _verdict_lines(rep: Reproduction) -> list[str]:
    lines = [
        f"{c.metric} of the student: {c.value:.1f}, catalog {c.expected:.1f}, allowed ± {c.allowed_difference:.1f}"
        for c in rep.verdict.comparisons
        if c.metric in SHOWN_METRICS
    ]
    spent = f"{duration(rep.seconds)}, {duration(rep.training_seconds)} of it training"
    lines.append(f"Verdict: {rep.verdict.outcome} ({rep.verdict.why}). {spent}.")
    return [*lines, f"Everything is in {rep.folder.path}"]


def _report(rep: Reproduction, command: str) -> str:
    facts = read_run_facts(rep.folder)
    header = ["features", *(f"{m}, {where}" for m in SHOWN_METRICS.values() for where in ("this run", "catalog"))]
    lines = [
        f"# {rep.checkpoint.name}",
        "",
        f"{rep.checkpoint.summary}.",
        "",
        f"`{command}`",
        "",
        f"**Verdict: {rep.verdict.outcome}** ({rep.verdict.why}).",
        "",
        f"| {' | '.join(header)} |",
        f"|---|{'---:|' * (len(header) - 1)}",
        *(f"| {' | '.join(row)} |" for row in _rows(rep)),
        "",
        f"Top-1 in percent on {len(rep.data.test or ())} test images. {rep.protocol}. The catalog's ± is the standard "
        "deviation over its seeds.",
        "",
        *fact_lines(facts),
        *health_lines(rep.folder.path, facts),
        "",
        "![embedding map](figures/embedding_map.png)",
        "",
        "![training curves](figures/curves.png)",
        "",
        "The student is `student.safetensors`; `model_card.md` says how to load it, `run.json` holds all facts, "
        "`recipe.yaml` the full recipe, `metrics.jsonl` the curves.",
    ]
    return "\n".join(lines) + "\n"
