"""`disco-zoo search`: the nearest images of a query in an embedding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from disco_zoo.cli.options import DEVICE, ENGINE_HELP, ENGINE_NAMES, JSON

if TYPE_CHECKING:
    from disco_zoo.models.engine import EngineName


@click.command("search")
@click.argument("query", nargs=-1, required=True)
@click.option("--in", "embedding", type=click.Path(path_type=Path), required=True, help="What `disco-zoo embed` made.")
@click.option("-k", "count", type=click.IntRange(min=1), default=20, show_default=True, help="How many images.")
@click.option("--html", "page", type=click.Path(path_type=Path), help="Write a page of pictures to look at.")
@click.option("--images", help="Where the embedded images are now, for --html.  [default: where they were]")
@click.option("--model", help="Embeds the query; must have the same weights.  [default: the one in the file]")
@DEVICE
@click.option("--engine", type=ENGINE_NAMES, default="auto", show_default=True, help=ENGINE_HELP)
@JSON
def command(
    query: tuple[str, ...],
    embedding: Path,
    count: int,
    page: Path | None,
    images: str | None,
    model: str | None,
    device: str,
    engine: EngineName,
    as_json: bool,
) -> None:
    """Find the images nearest to each QUERY: image files, a folder of them, names in the file, or another embedding.

    \b
    Examples:
      disco-zoo search cat.jpg --in photos.parquet
      disco-zoo search cat.jpg dog.jpg --in photos.parquet -k 12 --html found.html
      disco-zoo search holiday/0007.jpg --in photos.parquet --json
    """
    from disco_zoo.embedding.search import search

    result = search(query, embedding, count, page=page, images=images, model=model, device=device, engine=engine)
    if page is not None:
        click.echo(f"Wrote {page}.", err=True)
    click.echo(json.dumps(result.as_json()) if as_json else result.as_table())
