"""`disco-zoo embed`: features of images as a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from disco_zoo.cli.first_look import require_free_file, require_images
from disco_zoo.cli.options import DEVICE, ENGINE_HELP, ENGINE_NAMES, JSON


class ShardType(click.ParamType):
    """I/N, counted from 1."""

    name = "I/N"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> tuple[int, int]:
        shard, _, shards = str(value).partition("/")
        if shard.isdecimal() and shards.isdecimal() and 1 <= int(shard) <= int(shards):
            return int(shard), int(shards)
        self.fail(f"{value!r} is not one of N shards. Type: --shard 1/8 to --shard 8/8", parameter, context)


@click.command("embed")
@click.argument("images", nargs=-1, required=True)
@click.option("--model", required=True, help="A zoo name, a timm name, a run folder, a teacher or an authors' file.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="FILE.parquet, or FILE.npy for the vectors alone with a .json beside them.",
)
@click.option("--resume", is_flag=True, help="Go on where the same command stopped.")
@click.option(
    "--shard",
    type=ShardType(),
    help="Make share I of N, as other processes or machines make the others beside the same --out.",
)
@click.option("--yes", is_flag=True, help="Write over a file that is there.")
@click.option("--split", type=click.Choice(["train", "test"]), help="Embed this split only, where the source has both.")
@click.option("--normalise", is_flag=True, help="Make every vector of length 1.")
@click.option("--half", is_flag=True, help="Store float16: half the size.")
@click.option("--image-size", type=click.IntRange(min=16), help="Crop in pixels.  [default: the model's]")
@click.option("--resize-size", type=click.IntRange(min=16), help="Shorter side before it.  [default: the model's]")
@click.option(
    "--full-decode",
    is_flag=True,
    help="Decode large JPEGs whole. Otherwise at a half to an eighth of their size, where that still is 2.7 times what "
    "the crop needs: several times as fast, cosine at least 0.9999.",
)
@click.option("--batch-size", type=click.IntRange(min=1), default=128, show_default=True)
@click.option(
    "--max-unreadable",
    type=click.IntRange(min=0),
    help="Stop above so many unreadable images.  [default: 1 in 100, at least 10]",
)
@DEVICE
@click.option("--engine", type=ENGINE_NAMES, default="auto", show_default=True, help=ENGINE_HELP)
@click.option("--workers", type=click.IntRange(min=0), help="Processes that read images.")
@JSON
def command(images: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Embed IMAGES: a folder (whole), image files, a .txt with a path a line, a .parquet, a .tar, shards, or 'sample'.

    \b
    Examples:
      disco-zoo embed photos/ --model disco_effb0 --out photos.parquet
      disco-zoo embed photos/ --model disco_effb0 --out photos.parquet --resume
      disco-zoo embed list.txt --model resnet50.a1_in1k --out list.npy --half
      disco-zoo embed list.txt --model disco_effb0 --out list.parquet --shard 3/8
    """
    resume, write_over = given.pop("resume"), given.pop("yes")
    if given["shard"] is not None and write_over:
        raise click.UsageError(f"--yes with --shard: delete {given['out']} once, before all shards")
    require_images(images)
    require_free_file(given["out"], resume or given["shard"] is not None, write_over)
    from disco_zoo.core.console import console, duration
    from disco_zoo.embedding.embed import embed_job

    made = embed_job(images, **given).run(resume=resume, replace=write_over)
    facts = made.facts
    for message in list((facts.unreadable or {}).values()):
        console.print(f"No row for {message}", soft_wrap=True)
    if as_json:
        click.echo(
            json.dumps(
                {
                    "out": str(made.path),
                    "rows": made.num_rows,
                    "dims": facts.dims,
                    "model": facts.model,
                    "weights_sha256": facts.weights_sha256,
                    "unreadable": list((facts.unreadable or {}).values()),
                    "decoded_reduced": facts.num_reduced,
                    "seconds": round(made.seconds, 3),
                    "images_per_s": made.images_per_s,
                    "engine": facts.engine,
                    "rows_before": made.num_before,
                    "parts_missing": made.parts_missing,
                }
            )
        )
        return
    speed = "nothing left to do" if made.images_per_s is None else f"{made.images_per_s:.0f} images/s"
    if made.parts_missing:
        parts = f"{made.parts_missing} part{'s are' if made.parts_missing > 1 else ' is'}"
        click.echo(f"{made.path}: {parts} still missing; the last shard to end makes the file. {speed}")
        return
    lost = f", {len(facts.unreadable)} unreadable" if facts.unreadable else ""
    if facts.num_reduced:
        lost += f", {facts.num_reduced} decoded at reduced size (--full-decode decodes them whole)"
    click.echo(
        f"{made.path}: {made.num_rows} images × {facts.dims} numbers by {facts.model}{lost}; "
        f"{speed}, {duration(made.seconds)}"
    )
