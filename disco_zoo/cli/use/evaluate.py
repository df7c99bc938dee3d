"""`disco-zoo evaluate knn|linear|semi|transfer`: figures of any zoo model, timm model or run folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from disco_zoo.cli.first_look import require_data, require_new_result
from disco_zoo.cli.options import (
    DEVICE,
    ENGINE_HELP,
    ENGINE_NAMES,
    EVAL_DATA,
    JSON,
    READ_WORKERS,
    command_line,
    with_options,
)
from disco_zoo.cli.use.evaluate_table import table
from disco_zoo.core.launcher import chosen_device, default_workers
from disco_zoo.protocols.linear import DEFAULT_BATCH_SIZE

if TYPE_CHECKING:
    from disco_zoo.evaluation.evaluation import Evaluation
    from disco_zoo.evaluation.subject import Subject
    from disco_zoo.evaluation.tasks import ProbeOptions

_COMMON = [
    click.argument("model"),
    click.option(
        "--data",
        required=True,
        help="Labelled images: a folder with a subfolder a class, .tar, .parquet, hfds/NAME, or 'sample'.",
    ),
    EVAL_DATA,
    click.option("--untrained", is_flag=True, help="Random weights, drawn by --seed, to compare."),
    click.option("--image-size", type=click.IntRange(min=16), help="Crop in pixels.  [default: the model's]"),
    click.option("--resize-size", type=click.IntRange(min=16), help="Shorter side before it.  [default: the model's]"),
    click.option(
        "--seed",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        help="Seed of random weights, splits, order and crops.",
    ),
    click.option("--steps", type=click.IntRange(min=1), help="A look: so many batches of 256 images of each split."),
    click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the result as JSON, too."),
    click.option("--yes", is_flag=True, help="Write over a file that is there."),
    DEVICE,
    click.option("--engine", type=ENGINE_NAMES, default="torch", show_default=True, help=ENGINE_HELP),
    READ_WORKERS,
    JSON,
]
_PROBE = [
    click.option("--epochs", type=click.IntRange(min=1), help="[default: the protocol's]"),
    click.option(
        "--lr",
        "lrs",
        type=float,
        multiple=True,
        help="Learning rate for a batch of 256. Repeatable: a sweep in one run.  [default: the protocol's]",
    ),
    click.option(
        "--batch-size", type=click.IntRange(min=2), default=DEFAULT_BATCH_SIZE, show_default=True, help="Images a step."
    ),
    click.option(
        "--crops",
        type=click.IntRange(min=1),
        help="SGD on a frozen backbone: draw so many views of each image, and show their features again in all epochs.",
    ),
    click.option("--resume", is_flag=True, help="Go on with the probe beside --out, after its last whole epoch."),
]
_MODE = click.option("--mode", type=click.Choice(["frozen", "finetune"]), help="[default: what the protocol does]")


@click.group("evaluate")
def command() -> None:
    """Measure MODEL on labelled images: a zoo name, a timm name, a teacher, an authors' file or a run folder.

    Every figure comes with its protocol and a 95 % interval. Best and last epoch stand apart: papers report the best,
    which test images choose.

    \b
    Examples:
      disco-zoo evaluate knn disco_effb0 --data cifar10_train.parquet
      disco-zoo evaluate linear runs/mine --data photos/ --protocol fast
      disco-zoo evaluate linear disco_r18 --data imagenet/ --protocol disco --lr 3 --lr 30 --out r18.json
      disco-zoo evaluate semi disco_effb0 --data imagenet/ --list 1percent.txt --protocol disco
      disco-zoo evaluate transfer disco_effb0 --data cifar10_train.parquet --protocol disco
    """


command.add_command(table)


@command.command("knn")
@with_options(_COMMON)
@click.option("--protocol", default="default", show_default=True, help="default, dino, compress, ssl_small.")
@click.option("--k", "ks", type=click.IntRange(min=1), multiple=True, help="Repeatable.  [default: the protocol's]")
@click.option("--temperature", type=float, help="T of the weights exp(cos/T).  [default: the protocol's, 0.07]")
def knn(protocol: str, ks: tuple[int, ...], temperature: float | None, **given: Any) -> None:
    """Nearest neighbours, all k in one pass.

    \b
    default    cosine, weights exp(cos/0.07), k 1, 20 and 200
    dino       the same with k 10, 20, 100 and 200
    compress   nearest by unit vectors, k 1
    ssl_small  Euclidean, majority, best odd k up to 101: test images
               choose it, so the figure is optimistic
    """
    from disco_zoo.protocols.knn import knn_protocol

    preset = knn_protocol(protocol, ks=ks, temperature=temperature)

    def measure(subject: Subject, options: ProbeOptions) -> Evaluation:
        from disco_zoo.evaluation.tasks import measure_knn

        return measure_knn(subject, preset, options.seed)

    _run(measure, ks=preset.ks, **given)


@command.command("linear")
@with_options([*_COMMON, *_PROBE])
@click.option(
    "--protocol",
    default="fast",
    show_default=True,
    help="fast, disco, moco, seed, bingo (bingo_r or bingo_eff), compress, swav, ssl_small.",
)
def linear(protocol: str, **given: Any) -> None:
    """A linear probe by the protocol of a paper, or a fast one.

    `fast` solves a logistic regression on cached features, in minutes.

    --lr 3 --lr 30 trains a layer for each on the same views; test images choose the one that is reported.
    """
    from disco_zoo.protocols.linear import linear_protocol

    if protocol != "bingo":
        linear_protocol(protocol)  # reports an unknown one before anything is loaded

    def measure(subject: Subject, options: ProbeOptions) -> Evaluation:
        from disco_zoo.evaluation.tasks import measure_linear

        return measure_linear(subject, protocol, options)

    _run(measure, **given)


@command.command("semi")
@with_options([*_COMMON, *_PROBE, _MODE])
@click.option("--protocol", help="fast or disco (frozen), swav (finetune).  [default: fast; with finetune: swav]")
@click.option(
    "--fraction",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.01,
    show_default=True,
    help="Share of the labels, classes in turn: 0.01 is 1 %.",
)
@click.option(
    "--list",
    "list_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="File names instead, one a line.",
)
def semi(protocol: str | None, mode: Any, fraction: float, list_file: Path | None, **given: Any) -> None:
    """Few labels, with a frozen or a fine-tuned backbone.

    The two modes are different protocols, and their figures do not compare. --list takes SimCLR's lists of ImageNet.
    """
    from disco_zoo.evaluation.tasks import choose_protocol, measure_semi

    preset = choose_protocol("semi", protocol, mode)

    def measure(subject: Subject, options: ProbeOptions) -> Evaluation:
        return measure_semi(subject, preset, options, fraction=fraction, list_file=list_file)

    _run(measure, preset=preset, **given)


@command.command("transfer")
@with_options([*_COMMON, *_PROBE, _MODE])
@click.option("--protocol", help="fast or disco (frozen), ssl_small (both).  [default: fast]")
def transfer(protocol: str | None, mode: Any, image_size: int | None, resize_size: int | None, **given: Any) -> None:
    """Other data than the backbone's own.

    The papers take CIFAR-10 and CIFAR-100 at 224 pixels; `fast` keeps the model's own size.
    """
    from disco_zoo.evaluation.tasks import choose_protocol, measure_transfer, transfer_sizes

    preset = choose_protocol("transfer", protocol, mode)

    def measure(subject: Subject, options: ProbeOptions) -> Evaluation:
        return measure_transfer(subject, preset, options)

    image_size, resize_size = transfer_sizes(preset, image_size, resize_size)
    _run(measure, preset=preset, image_size=image_size, resize_size=resize_size, **given)


def _run(
    measure: Callable[[Subject, ProbeOptions], Evaluation],
    *,
    device: str,
    workers: int | None,
    as_json: bool,
    out: Path | None,
    yes: bool,
    steps: int | None,
    seed: int,
    ks: tuple[int, ...] = (),
    preset: Any = None,
    epochs: int | None = None,
    lrs: tuple[float, ...] = (),
    batch_size: int = DEFAULT_BATCH_SIZE,
    crops: int | None = None,
    resume: bool = False,
    **subject: Any,
) -> None:
    """Check, load, measure, write and print."""
    require_data(subject["data"], subject["eval_data"])
    require_new_result(out, write_over=yes)
    from disco_zoo.errors import Interrupted
    from disco_zoo.evaluation.evaluation import require_writable, write_evaluation
    from disco_zoo.evaluation.subject import load_subject
    from disco_zoo.evaluation.tasks import ProbeOptions, check_options

    if seed >= 2**63:
        raise click.UsageError("--seed must be below 2**63")
    options = ProbeOptions(epochs, tuple(dict.fromkeys(lrs)), batch_size, seed, _checkpoint(out, resume), crops)
    if preset is not None:
        check_options(preset, options)
    if out is not None:
        require_writable(out, write_over=yes)
    loaded = load_subject(
        **subject,
        ks=ks,
        seed=seed,
        max_batches=steps,
        device=chosen_device(device),
        workers=default_workers() if workers is None else workers,
    )
    try:
        evaluation = measure(loaded, options)
    except KeyboardInterrupt as error:
        raise Interrupted(_what_is_kept(options.checkpoint)) from error
    values = evaluation.as_json(command_line())
    click.echo(json.dumps(values) if as_json else _text(evaluation))  # first: a full disk must not cost the figures
    if out is not None:
        write_evaluation(values, out)
        if options.checkpoint is not None:
            options.checkpoint.remove()


def _checkpoint(out: Path | None, resume: bool) -> Any:
    """Where the state of a probe is kept: beside its result."""
    from disco_zoo.errors import BadRunFolder
    from disco_zoo.evaluation.probes.checkpoint import ProbeCheckpoint

    if out is not None:
        return ProbeCheckpoint(out.with_name(f"{out.name}.checkpoint.pt"), resume=resume)
    if resume:
        raise BadRunFolder("--resume goes on with a probe that was begun with --out. Type the same --out FILE.json")
    return None


def _what_is_kept(checkpoint: Any) -> str:
    """For a user who pressed Ctrl-C."""
    if checkpoint is None or not checkpoint.path.is_file():
        return "nothing was kept; a probe by SGD with --out can go on after each whole epoch"
    return "all whole epochs are kept. To go on, repeat the command with --resume"


def _text(evaluation: Evaluation) -> str:
    """The figures as text for the terminal."""
    bench = evaluation.subject.bench
    weights = " (random weights)" if evaluation.subject.untrained else ""
    look = ", a look at part of the images" if evaluation.subject.is_look else ""
    lines = [
        f"{evaluation.subject.name}{weights} on {bench.train.name}: {len(bench.train)} training images, "
        f"{evaluation.num_scored} test images, {len(set(bench.train.labels or ()))} classes{look}",
        evaluation.protocol,
    ]
    for metric, value in evaluation.figures.items():
        low, high = evaluation.intervals[metric]
        lines.append(f"  {metric:26} {value:6.2f} %   95 % interval {low:.2f} to {high:.2f}")
    if evaluation.details.get("best_k"):
        lines.append(f"  best k {evaluation.details['best_k']}, chosen on the test images: optimistic")
    if evaluation.details.get("best_epoch"):
        count = len(evaluation.details["top1_per_epoch"])
        lines.append(f"  best epoch {evaluation.details['best_epoch']} of {count}, chosen on the test images")
    if evaluation.unreadable:
        lines.append(f"  left out as unreadable: {len(evaluation.unreadable)}, first: {evaluation.unreadable[0]}")
    return "\n".join(lines)
