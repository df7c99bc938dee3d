"""`disco-zoo list`: the zoo as a table."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from disco_zoo.cli.options import JSON
from disco_zoo.zoo import table as zoo_table
from disco_zoo.zoo.catalog import Catalog, Teacher, load_catalog
from disco_zoo.zoo.licences import COMMERCIAL_NOTE
from disco_zoo.zoo.search import WEIGHTS_STATES


@click.command("list")
@click.argument("pattern", required=False)
@click.option("--architecture", metavar="NAME", help="Of this architecture: disco_effb0, or short effb0.")
@click.option("--method", metavar="NAME", help="Trained by this method: disco, seed, compress, moco_v2.")
@click.option("--teacher", metavar="NAME", help="Distilled from this teacher; `list --teachers` names them.")
@click.option("--data", metavar="NAME", help="Trained on these data: in1k, cifar10, fmnist_sample.")
@click.option(
    "--weights",
    type=click.Choice(WEIGHTS_STATES),
    help="By where the weights are: bundled, hub, official, none (recipe only), or installed by you.",
)
@click.option("--license", "licence", metavar="SPDX", help="By the licence of the weights: apache-2.0.")
@click.option("--commercial", is_flag=True, help="Those whose weights, code and teacher permit commercial use.")
@click.option("--teachers", is_flag=True, help="List the teachers instead.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw accuracy against parameters: .png or .svg.")
@JSON
def command(
    pattern: str | None,
    architecture: str | None,
    method: str | None,
    teacher: str | None,
    data: str | None,
    weights: str | None,
    licence: str | None,
    commercial: bool,
    teachers: bool,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Show the models of the zoo; PATTERN is a part of a name, or has wildcards. Filters add up.

    \b
    Examples:
      disco-zoo list
      disco-zoo list effb0
      disco-zoo list --method seed --weights official
      disco-zoo list "*_in1k" --json
      disco-zoo list --license apache-2.0
      disco-zoo list --commercial --weights bundled
      disco-zoo list --teachers
      disco-zoo list --data in1k --plot zoo.png
    """
    from disco_zoo.weights import store
    from disco_zoo.zoo import lite_wheels

    catalog, installed = load_catalog(), store.installed_names() | lite_wheels.installed_names()
    if teachers:
        of_students = {"architecture": architecture, "method": method, "teacher": teacher, "plot": plot}
        for option, value in of_students.items():
            if value is not None:
                raise click.UsageError(f"--{option} is a filter for students: leave out --teachers, or --{option}")
        found = catalog.matching_teachers(
            pattern, data=data, weights=weights, licence=licence, commercial=commercial, installed=installed
        )
        _list_teachers(found, catalog, installed, as_json)
        _say_commercial(commercial)
        return
    rows = catalog.matching(
        pattern,
        architecture=architecture,
        method=method,
        teacher=teacher,
        data=data,
        weights=weights,
        licence=licence,
        commercial=commercial,
        installed=installed,
    )
    if plot is not None:
        from disco_zoo.plotting.style import require_picture
        from disco_zoo.plotting.zoo_plot import draw_zoo

        require_picture(plot)
        drawn = draw_zoo(rows, catalog, plot)
        rest = "" if drawn == len(rows) else "; the rest has no linear figure"
        click.echo(f"{plot}: {drawn} of {len(rows)} models{rest}", err=True)
        if as_json:
            click.echo(json.dumps({"picture": str(plot), "drawn": drawn, "models": len(rows)}))
    elif as_json:
        click.echo(json.dumps([zoo_table.as_json(row, catalog, installed) for row in rows], indent=2))
    elif sys.stdout.isatty():
        zoo_table.print_for_terminal(rows, catalog, installed)
    else:
        # For grep and awk: one line a model, nothing cut, the legend out of the way.
        click.echo(zoo_table.render_plain(rows, catalog, installed))
        click.echo(zoo_table.legend(), err=True)
    _say_commercial(commercial)


def _say_commercial(asked: bool) -> None:
    if asked:
        click.echo(f"{COMMERCIAL_NOTE}.", err=True)


def _list_teachers(found: list[Teacher], catalog: Catalog, installed: set[str], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([zoo_table.teacher_as_json(teacher, catalog, installed) for teacher in found], indent=2))
    elif sys.stdout.isatty():
        zoo_table.print_teachers(found, catalog, installed)
    else:
        click.echo(zoo_table.render_teachers(found, catalog, installed))
        click.echo(zoo_table.TEACHERS_LEGEND, err=True)
