"""`disco-zoo data index`: webdataset shards found by number."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from disco_zoo.errors import counted

if TYPE_CHECKING:
    from disco_zoo.data.webdataset.index import ShardIndex


@click.command("index")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Folder of the index, to give as --data.  [default: disco_index/ in FOLDER, which is found from there]",
)
def command(folder: Path, out: Path | None) -> None:
    """Index the .tar shards in FOLDER, so that training finds their images by number.

    The shards are read once, headers and labels alone, and stay as they are. An interrupted index goes on when the
    command is repeated; a finished one is made again where shards changed.

    \b
    Examples:
      disco-zoo data index shards/
      disco-zoo data index /mnt/read_only/shards --out shards_index
    """
    from disco_zoo.core.console import StepProgress
    from disco_zoo.data.webdataset.index import left_out_of
    from disco_zoo.data.webdataset.index_build import build_index

    with StepProgress("indexing shards", 0) as progress:
        index, is_new = build_index(folder, out, lambda done, total: progress.update(done, total, "shards"))
    images, labelled = sum(shard.images for shard in index.shards), sum(shard.is_labelled for shard in index.shards)
    state = "indexed" if is_new else "is up to date:"
    click.echo(f"{folder} {state} {images} images in {len(index.shards)} shards, {_labels_text(index, labelled)}")
    if left_out := left_out_of(index.shards):
        click.echo(f"Left out: {', '.join(f'{count:,} {kind}' for kind, count in left_out.items())}")


def _labels_text(index: ShardIndex, labelled: int) -> str:
    if labelled == len(index.shards):
        return counted(len(index.class_names), "class") if index.class_names else "labelled by number"
    return f"labels in {labelled} of {len(index.shards)} shards alone" if labelled else "no labels"
