"""`disco-zoo compare`: methods on one budget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from disco_zoo.cli.options import DEVICE, JSON, command_line, set_option
from disco_zoo.core.launcher import chosen_device, default_workers

if TYPE_CHECKING:
    from disco_zoo.compare.comparison import Comparison


@click.command("compare")
@click.argument("recipes", nargs=-1, required=True)
@click.option(
    "--student", default="disco_r18", show_default=True, help="Student whose recipes run, where RECIPES names a scale."
)
@click.option("--seeds", default="0", show_default=True, help="Seeds of the runs, separated by commas: 0,1,2.")
@click.option("--data", help="Images: folder, .tar, .parquet, hfds/NAME, or 'sample'.")
@click.option("--eval-data", help="Labelled test images; default: the test split beside --data.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of all runs.  [default: runs/compare]")
@click.option("--report", type=click.Path(path_type=Path), help="Where table and picture go.  [default: --out]")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Trainings at a time.")
@click.option("--timing-rounds", type=click.IntRange(min=0), default=3, show_default=True, help="0: no timing.")
@click.option("--steps", type=click.IntRange(min=1), help="Stop each run after this many steps, for a look.")
@click.option("--same-head", is_flag=True, help="Give every head with a hidden layer the width of the widest.")
@click.option("--resume", is_flag=True, help="Go on with the runs in --out; what is finished is kept.")
@set_option("Change one key of each recipe")
@DEVICE
@click.option("--workers", type=click.IntRange(min=0), help="Processes of each training that draw views.")
@JSON
def command(
    recipes: tuple[str, ...],
    student: str,
    seeds: str,
    data: str | None,
    eval_data: str | None,
    out: Path | None,
    report: Path | None,
    jobs: int,
    timing_rounds: int,
    steps: int | None,
    same_head: bool,
    resume: bool,
    overrides: tuple[str, ...],
    device: str,
    workers: int | None,
    as_json: bool,
) -> None:
    """Train RECIPES from one start on one budget, and lay kNN, linear, images/s and memory side by side.

    RECIPES are names or paths of recipes, or a scale, which stands for all its recipes of one student. What must be
    equal for a fair comparison is checked first: data, student, start, optimiser, steps, teacher. Heads are the
    methods' own, their widths are printed.

    \b
    Examples:
      disco-zoo compare pocket
      disco-zoo compare pocket --data cifar10_train.parquet --seeds 0,1,2 --set optim.epochs=5
      disco-zoo compare pocket/disco_r18.mocov2_fmnist my_recipe.yaml --seeds 0,1,2
    """
    import json

    from disco_zoo.compare.comparison import CompareOptions, compare
    from disco_zoo.compare.report import write_comparison

    device, folder = chosen_device(device), out or Path("runs") / "compare"
    workers = default_workers() if workers is None else workers
    options = CompareOptions(
        seeds=_seeds(seeds),
        out=folder,
        report=report or folder,
        train_options=_train_options(data, eval_data, steps, device, workers),
        device=device,
        jobs=jobs,
        timing_rounds=timing_rounds,
        max_steps=steps,
        same_head=same_head,
        resume=resume,
        command=command_line(),
    )
    found = compare(recipes, student=student, data=data, eval_data=eval_data, overrides=overrides, options=options)
    write_comparison(found, options.report)
    if as_json:
        click.echo(json.dumps(found.as_json()))
    else:
        _print(found, options.report)


def _seeds(text: str) -> list[int]:
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise click.BadParameter(f"'{text}' is no list of whole numbers. Write: --seeds 0,1,2") from error
    if min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise click.BadParameter(f"'{text}': each seed once, from 0. Write: --seeds 0,1,2")
    return seeds


def _train_options(data: str | None, eval_data: str | None, steps: int | None, device: str, workers: int) -> list[str]:
    """Options passed to each `disco-zoo train`."""
    options = ["--device", device, "--workers", str(workers)]
    options += ["--data", data] if data else []
    options += ["--eval-data", eval_data] if eval_data else []
    return options + (["--steps", str(steps)] if steps else [])


def _print(found: Comparison, folder: Path) -> None:
    """The table, on stdout."""
    from rich.table import Table

    from disco_zoo.compare.comparison import KNN, LINEAR
    from disco_zoo.compare.report import head_of, with_spread
    from disco_zoo.core.console import stdout_console

    table = Table(title=f"{found.title}, {found.budget['steps']} steps, top-1 in percent", title_justify="left")
    timed = found.timed
    table.add_column("method")
    for head in ["head", "kNN", "linear", *(["images/s"] if timed else []), "peak MiB"]:
        table.add_column(head, justify="right")
    for row in found.ranked():
        speed = [f"{row.speed.images_per_s:.0f}"] if timed and row.speed else []
        memory = "" if row.peak_memory_mib is None else f"{row.peak_memory_mib:.0f}"
        table.add_row(row.label, head_of(row), with_spread(row, KNN), with_spread(row, LINEAR), *speed, memory)
    table.add_section()
    for title, figures in found.beside.items():
        linear = f"{figures[LINEAR]:.1f}" if LINEAR in figures else ""
        table.add_row(title, "", f"{figures[KNN]:.1f}", linear)
    console = stdout_console()
    console.print(table)
    console.print(f"Table and picture: {folder / 'comparison.md'}, {folder / 'comparison.png'}", soft_wrap=True)
