"""`disco-zoo data look`: what a source is, before anything is trained on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from disco_zoo.cli.options import JSON

if TYPE_CHECKING:
    from disco_zoo.data.dataset import ImageSource


@click.command("look")
@click.argument("source")
@click.option("--eval-data", metavar="DATA", help="Test images that are not beside the training images.")
@click.option("--boxes", is_flag=True, help="SOURCE is COCO's or VOC's, as detect reads it.  [default: of a .json]")
@click.option("--masks", is_flag=True, help="SOURCE is images with masks, as segment reads them.")
@click.option(
    "--sheet",
    type=click.Path(path_type=Path),
    metavar="FILE.png",
    help="Write a contact sheet: a few images of each class as a network sees them.",
)
@click.option("--image-size", type=click.IntRange(min=16), default=224, show_default=True, help="Side in pixels.")
@JSON
def command(
    source: str,
    eval_data: str | None,
    boxes: bool,
    masks: bool,
    sheet: Path | None,
    image_size: int,
    as_json: bool,
) -> None:
    """Say what SOURCE is: images, splits, classes and where from, bit depths, and what is left out or changed.

    SOURCE is anything that --data takes.

    \b
    Examples:
      disco-zoo data look photos/
      disco-zoo data look scans/ --sheet scans.png
      disco-zoo data look train.parquet --eval-data held_out/ --json
      disco-zoo data look my_coco/ --boxes
    """
    if boxes and masks:
        raise click.UsageError("--boxes or --masks: one of them")
    if boxes or masks or source.lower().endswith(".json"):
        opened, facts = _annotated(source, eval_data, masks)
    else:
        opened, facts = _plain(source, eval_data, as_json)
    if sheet is not None:
        from disco_zoo.data.dataset import require_index
        from disco_zoo.transforms.look_sheet import look_sheet

        require_index(opened, "a contact sheet")
        look_sheet(opened, sheet, image_size)
    if as_json:
        click.echo(json.dumps({**facts, "sheet": None if sheet is None else str(sheet)}))
    elif sheet is not None:
        click.echo(f"Contact sheet: {sheet}")


def _plain(source: str, eval_data: str | None, quiet: bool) -> tuple[ImageSource, dict[str, Any]]:
    """The training images, whose facts go to standard output, and the facts of both splits."""
    from disco_zoo.data.open_source import open_source
    from disco_zoo.data.pairing import open_test_beside, say_missing_classes
    from disco_zoo.data.summary import lines_of, look_facts, tell

    train = open_source(source, "train")
    if quiet:
        tell(train)
    test = open_test_beside(train, eval_data)
    if test is not None:
        say_missing_classes(train, test)
    facts = {"train": look_facts(train), "test": None if test is None else look_facts(test)}
    if not quiet:
        for line in lines_of(facts["train"]):
            click.echo(line)
        if test is None:
            click.echo(f"{source} has no test images")
    return train, facts


def _annotated(source: str, eval_data: str | None, masks: bool) -> tuple[ImageSource, dict[str, Any]]:
    """The training images alone, and the facts of both splits, which are said while they are read."""
    from disco_zoo.core.console import console
    from disco_zoo.data.image_list import FileListSource

    if masks:
        from disco_zoo.tasks.segmentation.check import check_masks
        from disco_zoo.tasks.segmentation.data import open_masked_pair

        masked, masked_test, notes = check_masks(*open_masked_pair(source, eval_data))
        files, ranges, looks = [image for image, _ in masked.pairs], masked.ranges, (masked.look, masked_test.look)
    else:
        from disco_zoo.tasks.detection.data import open_annotated_pair

        train, test = open_annotated_pair(source, eval_data)
        notes = [*train.notes, *test.notes]
        files, ranges, looks = [image.path for image in train.images], train.ranges, (train.look, test.look)
    for note in notes:
        console.print(f"Note: {note}", soft_wrap=True, markup=False)
    opened = FileListSource(source, files)
    opened.take_ranges(ranges)
    return opened, {"train": dict(looks[0]), "test": dict(looks[1]), "notes": list(notes)}
