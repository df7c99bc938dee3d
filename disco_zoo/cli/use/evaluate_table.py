"""`disco-zoo evaluate table`: results side by side."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("table")
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write them as Markdown, too.")
@click.option("--catalog", is_flag=True, help="Print `measured:` for a row of the catalog, which its card is made of.")
def table(results: tuple[Path, ...], out: Path | None, catalog: bool) -> None:
    """Put RESULTS side by side: protocols down, models across.

    RESULTS are files of --out. Frozen and fine-tuned backbones, other test images and looks get tables of their own.
    Several --seed of one model become mean ± standard deviation.

    \b
    Examples:
      disco-zoo evaluate table results/*.json --out results.md
      disco-zoo evaluate table seed0.json seed1.json seed2.json --catalog
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from disco_zoo.core.console import stdout_console
    from disco_zoo.core.files import write_out
    from disco_zoo.evaluation.table import as_markdown, as_yaml, measured_entries, read_results, result_tables

    read = read_results(results)
    tables = result_tables(read)
    if out is not None:
        write_out(out, lambda partial: partial.write_text(as_markdown(tables), encoding="utf-8"))
    if catalog:
        click.echo(as_yaml(measured_entries(read)), nl=False)
        return
    screen = stdout_console()
    for shown in tables:
        screen.print(f"{shown.title}: {shown.images}", soft_wrap=True)
        drawn = Table(box=SIMPLE_HEAD, pad_edge=False)
        for name in ("protocol", "figure"):
            drawn.add_column(name, overflow="fold")
        for name in shown.columns:
            drawn.add_column(name, justify="right", overflow="fold")
        for row in shown.rows:
            drawn.add_row(*(cell.replace(" [", "\n[") for cell in row))
        screen.print(drawn)
        for note in shown.notes:
            screen.print(note, soft_wrap=True)
