"""`disco-zoo data`: images made ready for training."""

from __future__ import annotations

import json
from pathlib import Path

import click

from disco_zoo.cli.options import JSON, READ_WORKERS
from disco_zoo.cli.use import data_index, data_look
from disco_zoo.core.launcher import default_workers


@click.group("data")
def command() -> None:
    """Look at images, and make them ready for training."""


command.add_command(data_index.command)
command.add_command(data_look.command)


@command.command("pack")
@click.argument("source")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the shards; use it as --data.")
@click.option("--size", type=click.IntRange(min=16), default=256, show_default=True, help="Shorter side in pixels.")
@click.option("--quality", type=click.IntRange(1, 95), default=92, show_default=True, help="Of the JPEGs.")
@click.option("--shard-mb", type=click.IntRange(min=1), default=256, show_default=True, help="Size of a shard.")
@click.option(
    "--max-unreadable",
    type=click.IntRange(min=0),
    help="Stop above so many unreadable images.  [default: 1 in 100, at least 10]",
)
@click.option("--resume", is_flag=True, help="Go on where the same command stopped.")
@READ_WORKERS
@JSON
def pack(
    source: str,
    out: Path,
    size: int,
    quality: int,
    shard_mb: int,
    max_unreadable: int | None,
    resume: bool,
    workers: int | None,
    as_json: bool,
) -> None:
    """Pack SOURCE, with its test split if it has one, into parquet shards of images resized once.

    No image is enlarged; one that is small enough already is stored as it is. SOURCE is anything that --data takes.

    \b
    Examples:
      disco-zoo data pack photos/ --out photos_256
      disco-zoo data pack hfds/NAME --out packed --size 160 --workers 8
      disco-zoo data pack photos/ --out photos_256 --resume
    """
    from disco_zoo.core.console import console, duration
    from disco_zoo.data.open_source import open_source
    from disco_zoo.data.pack.images import PackSettings
    from disco_zoo.data.pack.job import PackJob
    from disco_zoo.data.summary import tell
    from disco_zoo.errors import NoTestImages, require

    require("pyarrow", "train")
    sources = [open_source(source, "train")]
    try:
        sources.append(open_source(source, "test"))
    except NoTestImages:
        console.print(f"{source} has no test images; only training images are packed.", soft_wrap=True, markup=False)
    for opened in sources:
        tell(opened)
    workers = default_workers() if workers is None else workers
    made = PackJob(sources, out, PackSettings(size, quality), shard_mb, workers, max_unreadable).run(resume=resume)
    for message in made.unreadable:
        console.print(f"Left out: {message}", soft_wrap=True, markup=False)
    if as_json:
        click.echo(json.dumps({"out": str(out), **vars(made)}))
        return
    counts = ", ".join(f"{count} {split} images" for split, count in made.images.items())
    lost = f", {len(made.unreadable)} unreadable" if made.unreadable else ""
    megabytes = made.size_bytes / 10**6
    click.echo(f"{out}: {counts}{lost} in {made.shards} shards, {megabytes:.1f} MB; {duration(made.seconds)}")
