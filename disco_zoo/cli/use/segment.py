"""`disco-zoo segment`: what a frozen backbone knows of each place, by a linear head."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from disco_zoo.cli.first_look import require_free_folder
from disco_zoo.cli.options import DEVICE, JSON, OUT, READ_WORKERS, RESUME, STEPS, how_to_run, set_option, with_options

_OPTIONS: list[Any] = [
    click.option("--data", required=True, help="Folder of images and masks (PNG of class numbers), or VOC's."),
    click.option("--eval-data", help="Another to measure on; default: the val or test split of --data, else a fifth."),
    click.option("--preset", default="fast", show_default=True, help="fast or linear."),
    click.option("--untrained", is_flag=True, help="A backbone with random weights, to compare."),
    OUT,
    STEPS,
    RESUME,
    set_option("Change one key of the preset, e.g. maps=all or image_size=384; a run's settings.json lists them all"),
    click.option(
        "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of head, order and crops."
    ),
    DEVICE,
    READ_WORKERS,
    JSON,
]


@click.command("segment")
@click.argument("model")
@with_options(_OPTIONS)
def command(
    model: str,
    preset: str,
    overrides: tuple[str, ...],
    out: Path | None,
    steps: int | None,
    resume: bool,
    device: str,
    workers: int | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Train a linear segmentation head on the frozen MODEL and measure its mIoU.

    \b
    Examples:
      disco-zoo segment disco_effb0 --data my_masks/
      disco-zoo segment disco_effb0 --data VOCdevkit/VOC2012 --preset linear
    """
    folder = out or Path("runs") / f"segment-{Path(model).name}-{preset}"
    require_free_folder(folder, resume)
    from disco_zoo.tasks.dense_run import run_dense
    from disco_zoo.tasks.segmentation.settings import segmentation_settings

    settings = segmentation_settings(preset, overrides)
    job = _job(model=model, settings=settings, preset=preset, **given)
    options = how_to_run(device=device, workers=workers, resume=resume, steps=steps)
    facts = run_dense(job, folder, options)
    if as_json:
        click.echo(json.dumps(facts))
    elif "figures" not in facts:
        click.echo(f"{facts['steps']} of {facts['total_steps']} steps, not measured. To go on add --resume")
    else:
        _print(facts["figures"])


def _job(*, data: str, eval_data: str | None, untrained: bool, **given: Any) -> Any:
    from disco_zoo.core.console import StepProgress
    from disco_zoo.tasks.segmentation.check import check_masks
    from disco_zoo.tasks.segmentation.data import open_masked_pair
    from disco_zoo.tasks.segmentation.run import SegmentationJob

    train, test = open_masked_pair(data, eval_data)
    with StepProgress("reading masks", len(train) + len(test or ())) as progress:
        train, test, notes = check_masks(train, test, progress.update)
    return SegmentationJob(train=train, test=test, notes=tuple(notes), pretrained=not untrained, **given)


def _print(figures: dict[str, Any]) -> None:
    click.echo(f"mIoU {figures['miou']:.2f} %, pixel accuracy {figures['pixel_accuracy']:.2f} %")
    for name, share in figures["iou_per_class"].items():
        click.echo(f"  {name:20} {'–' if share is None else f'{share:6.2f} %'}")
