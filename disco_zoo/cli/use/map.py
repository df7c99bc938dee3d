"""`disco-zoo map`: an embedding as a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from disco_zoo.cli.options import JSON


@click.command("map")
@click.argument("embedding", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="FILE.html, or FILE.png and an SVG.  [default: a PNG]",
)
@click.option(
    "--method",
    type=click.Choice(["auto", "pca", "tsne", "umap"]),
    default="auto",
    show_default=True,
    help="auto: UMAP where it is installed, else t-SNE, else PCA.",
)
@click.option(
    "--max-points", type=click.IntRange(min=3), default=2000, show_default=True, help="A fixed random choice of images."
)
@click.option("--title", help="Title above the map.  [default: model and images]")
@click.option("--images", help="Where the embedded images are now, for a page.  [default: where they were]")
@click.option("--yes", is_flag=True, help="Write over pictures that are there.")
@JSON
def command(
    embedding: Path,
    out: Path | None,
    method: Any,
    max_points: int,
    title: str | None,
    images: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Draw EMBEDDING, a file of `disco-zoo embed`: near images lie near each other, classes have colours.

    As a page it shows each image's thumbnail and name where the mouse rests.

    \b
    Examples:
      disco-zoo map photos.parquet
      disco-zoo map photos.parquet --out photos.html
      disco-zoo map cifar10.parquet --out cifar10.png --method tsne --max-points 3000
    """
    from disco_zoo.cli.first_look import require_new_result
    from disco_zoo.embedding.embedding_file import EmbeddingFile
    from disco_zoo.embedding.map import draw_map
    from disco_zoo.errors import BadData, require
    from disco_zoo.plotting.embedding_map import check_method
    from disco_zoo.plotting.style import require_picture

    check_method(method)
    if out is not None and out.suffix.lower() == ".html":
        _page(embedding, out, method, max_points, title, images, as_json)
        return
    require("matplotlib", "train")
    if images is not None:
        raise BadData("--images is for a page: give --out FILE.html")
    if out is not None and out.suffix.lower() not in (".png", ".svg"):
        raise BadData(f"{out} must end in .png or .svg, of which both are written, or in .html")
    out = out or embedding.with_suffix(".png")
    file = EmbeddingFile(embedding)
    for suffix in (".png", ".svg"):
        require_picture(out.with_suffix(suffix))
        require_new_result(out.with_suffix(suffix), write_over=yes)
    made = draw_map(file, out, method=method, max_points=max_points, title=title)
    choice = made.choice
    if as_json:
        click.echo(
            json.dumps(
                {
                    "png": str(made.png),
                    "svg": str(made.svg),
                    "method": made.method,
                    "points": len(choice.indices),
                    "images": choice.num_images,
                    "classes_shown": len(choice.classes),
                    "classes": choice.num_classes,
                }
            )
        )
        return
    click.echo(f"{made.png} and {made.svg.name}: {made.method} of {choice}")


def _page(
    embedding: Path, out: Path, method: Any, max_points: int, title: str | None, images: str | None, as_json: bool
) -> None:
    from disco_zoo.core.files import require_folder
    from disco_zoo.embedding.embedding_file import EmbeddingFile
    from disco_zoo.embedding.map import write_map_page
    from disco_zoo.errors import CannotWrite

    if out.is_dir():
        raise CannotWrite(f"{out} is a folder. Choose another name")
    file = EmbeddingFile(embedding)
    require_folder(out.parent)
    made = write_map_page(file, out, method=method, max_points=max_points, title=title, images=images)
    if as_json:
        facts = {"page": str(out), "method": made.method, "points": len(made.choice.indices), "missing": made.missing}
        click.echo(json.dumps(facts | {"images": made.choice.num_images}))
        return
    gone = f"; of {made.missing} no picture was found" if made.missing else ""
    click.echo(f"{out}: {made.method} of {made.choice}{gone}. Open it in a browser.")
