"""`disco-zoo finetune`: a classifier from a model and labelled images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from disco_zoo.cli.first_look import require_data, require_free_folder
from disco_zoo.cli.options import (
    DEVICE,
    EVAL_DATA,
    JSON,
    OUT,
    RESUME,
    STEPS,
    TRACKER,
    VIEW_WORKERS,
    how_to_run,
    set_option,
    with_options,
)

if TYPE_CHECKING:
    from disco_zoo.tasks.finetune.settings import FinetuneSettings

_OPTIONS: list[Any] = [
    click.argument("model"),
    click.option(
        "--data",
        help="Labelled images: a folder with a subfolder a class, .tar, .parquet, hfds/NAME, or 'sample'.",
    ),
    EVAL_DATA,
    OUT,
    click.option("--head-only", is_flag=True, default=None, help="Train the head alone; the backbone stays frozen."),
    click.option("--new-head", is_flag=True, default=None, help="Of a fine-tuned MODEL take the backbone alone."),
    click.option("--untrained", is_flag=True, default=None, help="Random weights, drawn by --seed, to compare."),
    click.option("--epochs", type=click.IntRange(min=1), help="[default: 20, and more for fewer than 1280 images]"),
    click.option("--batch-size", type=click.IntRange(min=4), help="Images a step.  [default: 64]"),
    click.option("--lr", type=float, help="Peak rate of the head (AdamW).  [default: 0.001; --head-only: 0.01]"),
    click.option("--layer-decay", type=float, help="Rate of a layer as a share of the one above.  [default: 0.75]"),
    click.option("--augment", type=click.Choice(["none", "light", "strong"]), help="Views.  [default: light]"),
    click.option("--mixup", type=float, help="Mix images, shares from Beta(α, α).  [default: 0, off]"),
    click.option("--cutmix", type=float, help="Mix by pasting boxes, α as above.  [default: 0, off]"),
    click.option("--class-weights", type=click.Choice(["none", "balanced"]), help="balanced: rare classes weigh more."),
    click.option("--image-size", type=click.IntRange(min=16), help="Pixels.  [default: the model's]"),
    click.option(
        "--val-fraction",
        type=float,
        help="Training images held out to choose the best epoch.  [default: 0.1; with --few none, and the last counts]",
    ),
    click.option("--patience", type=click.IntRange(min=1), help="Stop after this many epochs without a better one."),
    click.option(
        "--few",
        "fews",
        type=click.IntRange(min=1),
        multiple=True,
        help="Train on this many images of each class. Repeatable: a comparison.",
    ),
    click.option("--seeds", help="Repeat for each of these seeds, e.g. 0,1,2: mean ± standard deviation."),
    click.option("--compare-untrained", is_flag=True, help="Also from random weights, on the same images."),
    STEPS,
    RESUME,
    set_option("Any other key of finetune.yaml, e.g. weight_decay=0.01"),
    click.option("--print", "print_only", is_flag=True, help="Print every setting and stop."),
    click.option("--seed", type=int, help="Seed of random weights, split, head, order and views.  [default: 0]"),
    DEVICE,
    VIEW_WORKERS,
    TRACKER,
    JSON,
]


@click.command("finetune")
@with_options(_OPTIONS)
def command(**given: Any) -> None:
    """Train a classifier from MODEL on labelled images, and measure it on their test images.

    MODEL is a zoo or timm name, a run folder, or a classifier of this command, which goes on where it has the same
    classes. The run folder gets model/ (timm's Hub format, class names inside), report.md and pictures.

    \b
    Examples:
      disco-zoo finetune disco_effb0 --data photos/
      disco-zoo finetune disco_effb0 --print
      disco-zoo finetune disco_effb0 --data photos/ --head-only --class-weights balanced --patience 5
      disco-zoo finetune disco_effb0 --data cifar10_train.parquet --few 10 --few 100 --seeds 0,1,2 --compare-untrained
    """
    _finetune(**given)


def _print_settings(settings: FinetuneSettings, data: str | None, as_json: bool) -> None:
    """The settings; with data, those that the number of images decides are among them."""
    from disco_zoo.tasks.finetune.run import open_labeled, training_split

    if data is not None:
        settings = settings.resolved(len(training_split(settings, open_labeled(data))[0]))
    click.echo(json.dumps(settings.as_dict()) if as_json else settings.as_yaml(), nl=as_json)
    chosen = "" if data is not None else "; epochs, lr and layer_decay by the images, add --data to see them"
    held_out = f"{settings.held_out:.0%} of the images held out"
    click.echo(f"null: all images, {held_out}, no early stop, the model's input size{chosen}", err=True)


def _finetune(
    *,
    data: str | None,
    eval_data: str | None,
    out: Path | None,
    steps: int | None,
    resume: bool,
    overrides: tuple[str, ...],
    device: str,
    workers: int | None,
    trackers: tuple[str, ...],
    as_json: bool,
    fews: tuple[int, ...],
    seeds: str | None,
    compare_untrained: bool,
    print_only: bool,
    **given: Any,
) -> None:
    require_free_folder(out, resume)
    from disco_zoo.errors import BadData, BadRecipe
    from disco_zoo.tasks.finetune.settings import read_settings

    few = {"few": fews[0]} if len(fews) == 1 else {}
    settings = read_settings({**given, **few}, overrides)
    if print_only:
        _print_settings(settings, data, as_json)
        return
    if data is None:
        raise BadData(
            "fine-tuning needs labelled images: add --data (a folder with a subfolder a class, or a .parquet)"
        )
    if seeds is not None and given["seed"] is not None:
        raise BadRecipe("--seed and --seeds both name seeds. Leave --seed out")
    single = len(fews) <= 1 and seeds is None and not compare_untrained
    require_data(data, eval_data)
    options = how_to_run(device=device, workers=workers, resume=resume, steps=steps, trackers=trackers)
    folder = out or Path("runs") / _default_name(settings, data, comparison=not single)
    if single:
        _one(settings, data, eval_data, folder, options, as_json)
    else:
        from disco_zoo.tasks.finetune.few_labels import make_plan

        plan = make_plan(settings, fews, _read_seeds(seeds), compare_untrained)
        _several(plan, data, eval_data, folder, options, as_json)


def _one(settings: Any, data: str, eval_data: str | None, folder: Path, options: Any, as_json: bool) -> None:
    from disco_zoo.tasks.finetune.report import summary_lines
    from disco_zoo.tasks.finetune.run import finetune_into, open_labeled

    facts = finetune_into(settings, open_labeled(data, eval_data), folder, options)
    click.echo(json.dumps(facts) if as_json else "\n".join(summary_lines(facts, str(folder))))


def _several(plan: Any, data: str, eval_data: str | None, folder: Path, options: Any, as_json: bool) -> None:
    from rich.table import Table

    from disco_zoo.core.console import stdout_console
    from disco_zoo.tasks.finetune.few_labels import (
        HEADER,
        compare,
        difference_lines,
        table_rows,
        title_of,
        write_comparison,
    )
    from disco_zoo.tasks.finetune.run import open_labeled

    opened = open_labeled(data, eval_data)
    cells = compare(plan, opened, folder, options)
    facts = write_comparison(cells, plan, opened, folder, options.command, options.device)
    if as_json:
        click.echo(json.dumps(facts))
        return
    out = stdout_console()
    table = Table(*HEADER, title=title_of(facts), title_justify="left")
    for row in table_rows(cells):
        table.add_row(*row)
    out.print(table)
    for line in [*difference_lines(cells), f"Everything is in {folder}"]:
        out.print(line, soft_wrap=True)


def _read_seeds(text: str | None) -> list[int]:
    from disco_zoo.errors import BadRecipe

    try:
        seeds = [int(part) for part in text.split(",")] if text is not None else []
    except ValueError:
        seeds = [-1]
    if any(seed < 0 for seed in seeds):
        raise BadRecipe(f"--seeds {text}: write whole numbers with commas between them, e.g. --seeds 0,1,2")
    return seeds


def _default_name(settings: Any, data: str, *, comparison: bool) -> str:
    """`finetune-MODEL-DATA`, fit for a folder's name whatever MODEL and DATA are."""
    model, images = (Path(name).name.rpartition(":")[-1] for name in (settings.model, Path(data).stem))
    few = "-few" if comparison else f"-{settings.few}" if settings.few else ""
    start = "-untrained" if settings.untrained else "-head" if settings.head_only else ""
    return f"finetune-{model}-{images}{few}{start}"
