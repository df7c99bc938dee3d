"""`disco-zoo list`: the zoo as a table."""

from __future__ import annotations

import json
import sys

import click

from disco_zoo import zoo_table
from disco_zoo.catalog import load_catalog


@click.command("list")
@click.argument("pattern", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the catalog's rows as JSON.")
def command(pattern: str | None, as_json: bool) -> None:
    """Show the models of the zoo; PATTERN is a part of a name, or has wildcards.

    \b
    Examples:
      disco-zoo list
      disco-zoo list effb0
      disco-zoo list "*_in1k" --json
    """
    catalog = load_catalog()
    rows = catalog.matching(pattern)
    if as_json:
        click.echo(json.dumps([zoo_table.as_json(row) for row in rows], indent=2))
    elif sys.stdout.isatty():
        zoo_table.print_for_terminal(rows, catalog)
    else:
        # For grep and awk: one line a model, nothing cut, the legend out of the way.
        click.echo(zoo_table.render_plain(rows, catalog))
        click.echo(zoo_table.legend(), err=True)
