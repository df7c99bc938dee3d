"""`disco-zoo show`: everything about one model."""

from __future__ import annotations

import json
import sys

import click

from disco_zoo.cli.options import JSON
from disco_zoo.cli.zoo import describe
from disco_zoo.zoo.catalog import load_catalog


@click.command("show")
@click.argument("name")
@JSON
def command(name: str, as_json: bool) -> None:
    """Show all that is known of NAME, a checkpoint or a teacher: figures, weights, licences, how to load it.

    \b
    Examples:
      disco-zoo show effb0
      disco-zoo show disco_effb1.seed_swav_r152_in1k
      disco-zoo show mocov2_r50 --json
    """
    sheet = describe.describe(name, load_catalog())
    if as_json:
        click.echo(json.dumps(sheet.json, indent=2))
    elif sys.stdout.isatty():
        describe.print_for_terminal(sheet)
    else:
        click.echo(describe.render_plain(sheet))
