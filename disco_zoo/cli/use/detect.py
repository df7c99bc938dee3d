"""`disco-zoo detect`: a detector on a backbone, trained and measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from disco_zoo.cli.first_look import require_free_folder
from disco_zoo.cli.options import DEVICE, JSON, OUT, READ_WORKERS, RESUME, STEPS, how_to_run, set_option, with_options

_OPTIONS: list[Any] = [
    click.option("--data", required=True, help="Folder in COCO's or VOC's layout, or an instances .json."),
    click.option("--eval-data", help="Another to measure on; default: the val or test split of --data, else a fifth."),
    click.option("--masks", is_flag=True, help="Mask R-CNN: outlines, too."),
    click.option("--preset", default="fast", show_default=True, help="fast, voc, voc_disco or coco_2x."),
    click.option(
        "--neck",
        type=click.Choice(["fpn", "c4"]),
        help="Neck to use in place of the preset's; c4 is for ResNets.",
    ),
    click.option("--freeze", is_flag=True, help="Train only what is added to the backbone."),
    click.option("--untrained", is_flag=True, help="Start from random weights, to compare."),
    OUT,
    STEPS,
    RESUME,
    set_option("Change one key of the preset, e.g. sizes=[320] or lr=0.001; a run's settings.json lists them all"),
    click.option(
        "--seed",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        help="Seed of the new layers, order and mirroring.",
    ),
    DEVICE,
    READ_WORKERS,
    JSON,
]


@click.command("detect")
@click.argument("model")
@with_options(_OPTIONS)
def command(
    model: str,
    preset: str,
    neck: str | None,
    overrides: tuple[str, ...],
    out: Path | None,
    steps: int | None,
    resume: bool,
    device: str,
    workers: int | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Train a detector on MODEL, a zoo or timm name, a run folder or an authors' file, and measure it.

    \b
    Examples:
      disco-zoo detect disco_effb0 --data my_coco/
      disco-zoo detect disco_effb0 --data my_coco/ --masks --set steps=2000
      disco-zoo detect resnet50 --data VOCdevkit/ --preset voc
    """
    folder = out or _default_out(model, preset)
    require_free_folder(folder, resume)
    from disco_zoo.tasks.dense_run import run_dense
    from disco_zoo.tasks.detection.settings import detection_settings

    settings = detection_settings(preset, neck, overrides)
    job = _job(model=model, settings=settings, preset=preset, **given)
    options = how_to_run(device=device, workers=workers, resume=resume, steps=steps)
    facts = run_dense(job, folder, options)
    if as_json:
        click.echo(json.dumps(facts))
    else:
        _print(facts)


def _job(*, data: str, eval_data: str | None, untrained: bool, **given: Any) -> Any:
    from disco_zoo.tasks.detection.data import open_annotated_pair
    from disco_zoo.tasks.detection.run import DetectionJob

    train, test = open_annotated_pair(data, eval_data)
    return DetectionJob(train=train, test=test, pretrained=not untrained, **given)


def _print(facts: dict[str, Any]) -> None:
    from disco_zoo.tasks.detection.report import figure_lines

    if "figures" not in facts:
        click.echo(f"{facts['steps']} of {facts['total_steps']} steps, not measured. To go on add --resume")
        return
    for line in figure_lines(facts["figures"]):
        click.echo(line)


def _default_out(model: str, preset: str) -> Path:
    return Path("runs") / f"detect-{Path(model).name}-{preset}"
