"""`disco-zoo site`: the zoo as a page for a browser."""

from __future__ import annotations

from pathlib import Path

import click

from disco_zoo.core.files import write_out
from disco_zoo.errors import counted
from disco_zoo.site.entries import read_latencies
from disco_zoo.site.page import render_page
from disco_zoo.zoo.catalog import load_catalog


@click.command("site")
@click.argument("pattern", required=False)
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("zoo.html"), show_default=True, help="The HTML file."
)
@click.option("--title", default="The zoo", show_default=True, help="Title above the page.")
@click.option(
    "--latency",
    type=click.Path(path_type=Path),
    help="CPU latencies to show: a file of `disco-zoo export --table --json`.",
)
def command(pattern: str | None, out: Path, title: str, latency: Path | None) -> None:
    """Write the zoo as one HTML file: a table to filter and sort, a chart, and a card for each checkpoint.

    The page needs no network; without JavaScript its table and cards are still there. A catalog of your own
    (DISCO_ZOO_CATALOG) gives a page of your own. PATTERN as in `disco-zoo list`.

    \b
    Examples:
      disco-zoo site --out zoo.html
      DISCO_ZOO_CATALOG=lab.yaml disco-zoo site --title "Our lab's zoo" --out lab.html
      disco-zoo export --table --json > latency.json && disco-zoo site --latency latency.json
    """
    catalog = load_catalog()
    rows = catalog.matching(pattern)
    order = list(catalog.architectures)
    rows.sort(key=lambda row: order.index(row.architecture))
    latencies = None if latency is None else read_latencies(latency)
    text = render_page(rows, catalog, title=title, latencies=latencies)
    write_out(out, lambda partial: partial.write_text(text, encoding="utf-8"))
    click.echo(f"{out}: {counted(len(rows), 'checkpoint')}, {len(text.encode()) / 1e3:.0f} kB. Open it in a browser.")
