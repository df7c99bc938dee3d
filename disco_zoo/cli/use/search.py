"""`disco-zoo search`: the nearest images of a query in an embedding."""

from __future__ import annotations

import json
from pathlib import Path

import click

from disco_zoo.cli.options import DEVICE, JSON, chosen_device


@click.command("search")
@click.argument("query", nargs=-1, required=True)
@click.option("--in", "embedding", type=click.Path(path_type=Path), required=True, help="What `disco-zoo embed` made.")
@click.option("-k", "count", type=click.IntRange(min=1), default=20, show_default=True, help="How many images.")
@click.option("--html", "page", type=click.Path(path_type=Path), help="Write a page of pictures to look at.")
@click.option("--images", help="Where the embedded images are now, for --html.  [default: where they were]")
@click.option("--model", help="Embeds the query; must have the same weights.  [default: the one in the file]")
@DEVICE
@JSON
def command(
    query: tuple[str, ...],
    embedding: Path,
    count: int,
    page: Path | None,
    images: str | None,
    model: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Find the images nearest to each QUERY: image files, a folder of them, names in the file, or another embedding.

    \b
    Examples:
      disco-zoo search cat.jpg --in photos.parquet
      disco-zoo search cat.jpg dog.jpg --in photos.parquet -k 12 --html found.html
      disco-zoo search holiday/0007.jpg --in photos.parquet --json
    """
    from disco_zoo.core.files import require_folder, write_out
    from disco_zoo.embed.embedding_file import EmbeddingFile
    from disco_zoo.embed.query import Pictures, resolve_queries
    from disco_zoo.embed.results import Found, as_page, as_table
    from disco_zoo.embed.results import as_json as to_json
    from disco_zoo.embed.search import search
    from disco_zoo.errors import CannotWrite, require

    require("faiss", "train")
    file = EmbeddingFile(embedding)
    pictures = Pictures(file, images)
    if page is not None:  # what cannot be written or shown is told before the search
        if page.is_dir():
            raise CannotWrite(f"{page} is a folder. Choose another name for --html")
        require_folder(page.parent)
        pictures.check()
    queries = resolve_queries(query, file, pictures=pictures, model=model, device=chosen_device(device))
    import numpy as np

    hits = search(file, np.stack([one.vector for one in queries]), count, [one.own_row for one in queries])
    found = [Found(one, nearest) for one, nearest in zip(queries, hits, strict=True)]
    if page is not None:
        text = as_page(file, found, pictures)
        write_out(page, lambda partial: partial.write_text(text, encoding="utf-8"))
        click.echo(f"Wrote {page}.", err=True)
    click.echo(json.dumps(to_json(file, found)) if as_json else as_table(file, found))
