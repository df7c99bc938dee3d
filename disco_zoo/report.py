"""What a run leaves for people: pictures, `report.md`, the model card, and the table on the terminal."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from disco_zoo.catalog import Checkpoint, Measured, load_catalog
from disco_zoo.embedding_map import plot_embedding_map, plot_embedding_pair
from disco_zoo.errors import BadData
from disco_zoo.health_report import health_lines
from disco_zoo.measure import Measurement, recipe_bench
from disco_zoo.metric_logger import read_metrics
from disco_zoo.model_card import METHOD_TITLES, render_card
from disco_zoo.plots import plot_curves
from disco_zoo.progress import console, duration
from disco_zoo.report_advice import enough_line, load_lines
from disco_zoo.reproduce import Reproduction
from disco_zoo.run import Run
from disco_zoo.run_folder import RunFolder, hardware_line

SHOWN_METRICS = {"knn20_top1": "kNN", "linear_top1": "linear"}


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
    _curves(folder, rep.checkpoint.name)
    start, student = rep.test_features["start"], rep.test_features["student"]
    plot_embedding_pair(
        start.features, student.features, student.labels, rep.data.train.class_names,
        folder.figures / "embedding_map.png", f"{rep.checkpoint.name}: test features before and after training",
    )  # fmt: skip
    measured = _measured(rep, command)
    folder.write_json("results.json", rep.as_json())
    card = render_card(
        rep.checkpoint.model_copy(update={"measured": measured}), load_catalog(), weights_file=folder.student.name
    )
    (folder.path / "model_card.md").write_text(card, encoding="utf-8")
    (folder.path / "report.md").write_text(_report(rep, command), encoding="utf-8")


def print_reproduction(rep: Reproduction) -> None:
    """The table and the verdict, on stdout."""
    out = Console(highlight=False)
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


def finish_training(run: Run) -> dict[str, Any] | None:
    """Measure a trained student where there are labels; write pictures and report.md; return the facts of the run.

    All processes call this; the first one alone writes, and the others return None.
    """
    measured = _measure(run) if run.data.has_labels and run.trainer.finished else None
    if not run.is_main_process:
        return None
    facts = run.folder.read_json("run.json")
    trained = facts["steps"] > 0
    if trained:
        _curves(run.folder, run.recipe.name)
    title = run.recipe.name if trained else f"{run.recipe.name}: the start, untrained"
    lines = [f"# {title}", "", f"`{facts['command']}`", "", *_fact_lines(facts)]
    optim = run.recipe.optim
    few = enough_line(len(run.data.trained_on), optim.batch_size, facts["total_steps"], optim.epochs)
    if trained and few:
        lines += ["", few]
        console.print(few, soft_wrap=True)
    if measured is not None:
        protocol, measurement = measured
        facts["figures"] = measurement.figures
        run.folder.write_json("run.json", facts)
        plot_embedding_map(
            measurement.test_features.features, measurement.test_features.labels, run.data.train.class_names,
            run.folder.figures / "embedding_map.png", f"{run.recipe.name}: test features",
        )  # fmt: skip
        lines += ["", "| metric | top-1, % |", "|---|---:|"]
        lines += [f"| {metric} | {value:.2f} |" for metric, value in measurement.figures.items()]
        lines += ["", f"Protocol: {protocol}.", "", "![map](figures/embedding_map.png)"]
        shown = ", ".join(f"{title} {measurement.figures[metric]:.1f} %" for metric, title in SHOWN_METRICS.items())
        console.print(f"{run.recipe.name}: {shown}", soft_wrap=True)
    if trained:
        lines += [*health_lines(run.folder.path, facts), "", "![curves](figures/curves.png)"]
        lines += ["", "## How to load it", "", *load_lines(facts["student"])]
    (run.folder.path / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    console.print(f"{'Student' if trained else 'Start'} and report are in {run.folder.path}", soft_wrap=True)
    return facts


def _measure(run: Run) -> tuple[str, Measurement] | None:
    """None where the labels do not allow it: the training is done and its student stays."""
    assert run.data.test is not None
    try:
        bench = recipe_bench(run.recipe, run.data.train, run.data.test, run.options.device)
    except BadData as error:
        console.print(f"Not measured: {error}", soft_wrap=True)
        return None
    return bench.protocol, bench.measure_student(run.parts.student, "measuring student")


def _curves(folder: RunFolder, name: str) -> None:
    plot_curves(read_metrics(folder.path), folder.figures / "curves.png", f"{name}: training")


def _measured(rep: Reproduction, command: str) -> list[Measured]:
    common = {
        "seeds": [rep.recipe.seed],
        "protocol": rep.protocol,
        "command": command,
        "hardware": hardware_line(),
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
    if entry is None:
        return "–"
    return f"{entry.mean:.1f}" + ("" if entry.std is None else f" ± {entry.std:.1f}")


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
    facts = rep.folder.read_json("run.json")
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
        *_fact_lines(facts),
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


def _fact_lines(facts: dict[str, Any]) -> list[str]:
    student, teacher = facts["student"], facts["teacher"]
    lines = [
        f"- student: {student['model']}, {student['parameters'] / 1e6:.2f} M parameters, {student['image_size']} px, "
        f"sha256 `{student['sha256']}`",
        f"- data: {facts['data']['images']} images of {_data_name(facts['data'])}, "
        f"fingerprint `{facts['data']['fingerprint'][:16]}`",
        f"- training: {facts['steps']} of {facts['total_steps']} steps, {duration(facts['training_seconds'])}, "
        f"{facts['images_per_s']} images/s, {facts['data_wait_share']:.0%} of the time waiting for data, "
        f"seed {facts['seed']}",
        f"- hardware: {facts['hardware']['cpu_cores']} CPU cores ({facts['hardware']['cpu']})"
        + "".join(f", {name}" for name in facts["hardware"]["accelerators"]),
    ]
    if extra := facts.get("extra_data"):
        lines.insert(
            2,
            f"- extra data: {extra['images']} images of {extra['id']}, {extra['repeats']} times an epoch, "
            f"fingerprint `{extra['fingerprint'][:16]}`",
        )
    if teacher is not None:
        lines.insert(1, f"- teacher: {teacher['title']}, sha256 `{teacher['sha256'] or 'not a file'}`")
        for cache in teacher.get("caches") or ():
            lines.insert(2, f"- its embeddings: of {cache['views']} fixed views an image, from cache {cache['id']}")
    if facts["unreadable_images"]:
        lines.append(f"- {facts['unreadable_images']} images could not be read: unreadable_images.txt")
    return lines


def _data_name(data: dict[str, Any]) -> str:
    """The recipe's data set where it has as many images, else what the user typed."""
    known = load_catalog().datasets.get(data["id"])
    return str(data["id"]) if known is not None and known.num_train == data["images"] else str(data["source"])


def default_out(name: str, steps: int | None) -> Path:
    """Where a run goes without `--out`; a look gets a folder of its own."""
    return Path("runs") / (name if steps is None else f"{name}-{steps}-steps")
