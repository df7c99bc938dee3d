"""`disco-zoo evaluate table`: results side by side."""

from __future__ import annotations

from pathlib import Path

import click

from disco_zoo.cli.options import command_line


@click.command("table")
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write them as Markdown, too.")
def table(results: tuple[Path, ...], out: Path | None) -> None:
    """Put RESULTS, files of --out, side by side: protocols down, models across.

    Frozen and fine-tuned backbones, other test images and looks get tables of their own. Several --seed of one model
    become mean ± standard deviation.

    \b
    Example:
      disco-zoo evaluate table results/*.json --out results.md
    """
    from rich.console import Console
    from rich.table import Table

    from disco_zoo.atomic import write_out
    from disco_zoo.evaluate.table import as_markdown, read_results, result_tables

    tables = result_tables(read_results(results))
    if out is not None:
        write_out(out, lambda partial: partial.write_text(as_markdown(tables, command_line()), encoding="utf-8"))
    screen = Console(highlight=False)
    for shown in tables:
        drawn = Table(title=f"{shown.title}: {shown.images}", title_justify="left", title_style="")
        for number, name in enumerate(shown.header):
            drawn.add_column(name, justify="left" if number < 2 else "right", overflow="fold")
        for row in shown.rows:
            drawn.add_row(*row)
        screen.print(drawn)
        for note in shown.notes:
            screen.print(note, soft_wrap=True, markup=False)
