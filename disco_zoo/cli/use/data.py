"""`disco-zoo data`: images looked at, indexed and made ready for training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from disco_zoo.cli.options import JSON, READ_WORKERS
from disco_zoo.core.launcher import default_workers
from disco_zoo.errors import counted


@click.group("data")
def command() -> None:
    """Look at images, and make them ready for training."""


@command.command("pack")
@click.argument("source")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the shards; use it as --data.")
@click.option("--size", type=click.IntRange(min=16), default=256, show_default=True, help="Shorter side in pixels.")
@click.option("--quality", type=click.IntRange(1, 95), default=92, show_default=True, help="Quality of the JPEGs.")
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
        console.print(f"{source} has no test images; only training images are packed.", soft_wrap=True)
    sources[0].share_depth(sources[-1])
    for opened in sources:
        tell(opened)
    workers = default_workers() if workers is None else workers
    made = PackJob(sources, out, PackSettings(size, quality), shard_mb, workers, max_unreadable).run(resume=resume)
    for message in made.unreadable:
        console.print(f"Left out: {message}", soft_wrap=True)
    if as_json:
        click.echo(json.dumps({"out": str(out), **vars(made)}))
        return
    counts = ", ".join(f"{count} {split} images" for split, count in made.images.items())
    lost = f", {len(made.unreadable)} unreadable" if made.unreadable else ""
    megabytes = made.size_bytes / 10**6
    click.echo(f"{out}: {counts}{lost} in {made.shards} shards, {megabytes:.1f} MB; {duration(made.seconds)}")


if TYPE_CHECKING:
    from disco_zoo.data.webdataset.index import ShardIndex


@command.command("index")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Folder of the index, to give as --data.  [default: disco_index/ in FOLDER, which is found from there]",
)
def index_shards(folder: Path, out: Path | None) -> None:
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


if TYPE_CHECKING:
    from disco_zoo.data.dataset import ImageSource


@command.command("look")
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
def look(
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
    from disco_zoo.data.dataset import require_same_classes
    from disco_zoo.data.open_source import open_source
    from disco_zoo.data.pairing import open_test_beside, say_missing_classes
    from disco_zoo.data.summary import lines_of, look_facts, tell

    train = open_source(source, "train")
    if quiet:
        tell(train)
    test = open_test_beside(train, eval_data)
    if test is not None:
        require_same_classes(train, test)
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
        console.print(f"Note: {note}", soft_wrap=True)
    opened = FileListSource(source, files)
    opened.take_ranges(ranges)
    return opened, {"train": dict(looks[0]), "test": dict(looks[1]), "notes": list(notes)}
