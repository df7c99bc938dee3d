"""`disco-zoo data look`: what a source is, before anything is trained on it."""

from __future__ import annotations

import json
from pathlib import Path

import click

from disco_zoo.cli.options import JSON


@click.command("look")
@click.argument("source")
@click.option("--eval-data", metavar="DATA", help="Test images that are not beside the training images.")
@click.option(
    "--sheet",
    type=click.Path(path_type=Path),
    metavar="FILE.png",
    help="Write a contact sheet: a few images of each class as a network sees them.",
)
@click.option("--image-size", type=click.IntRange(min=16), default=224, show_default=True, help="Side in pixels.")
@JSON
def command(source: str, eval_data: str | None, sheet: Path | None, image_size: int, as_json: bool) -> None:
    """Say what SOURCE is: images, splits, classes and where from, bit depths, and what is left out or changed.

    SOURCE is anything that --data takes.

    \b
    Examples:
      disco-zoo data look photos/
      disco-zoo data look scans/ --sheet scans.png
      disco-zoo data look train.parquet --eval-data held_out/ --json
    """
    from disco_zoo.data.open_source import open_source
    from disco_zoo.data.pairing import open_test_beside, say_missing_classes
    from disco_zoo.data.summary import change_line, look_facts, summary_line, tell

    train = open_source(source, "train")
    if as_json:
        tell(train)
    test = open_test_beside(train, eval_data)
    if test is not None:
        say_missing_classes(train, test)
    if sheet is not None:
        from disco_zoo.data.dataset import require_index
        from disco_zoo.transforms.look_sheet import look_sheet

        require_index(train, "a contact sheet")
        look_sheet(train, sheet, image_size)
    if as_json:
        facts = {"train": look_facts(train), "test": None if test is None else look_facts(test)}
        click.echo(json.dumps({**facts, "sheet": None if sheet is None else str(sheet)}))
        return
    for line in (summary_line(train), change_line(train)):
        if line:
            click.echo(line)
    if test is None:
        click.echo(f"{source} has no test images")
    if sheet is not None:
        click.echo(f"Contact sheet: {sheet}")
