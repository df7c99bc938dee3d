"""Options that mean the same in every command."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from disco_zoo.core.launcher import is_first_process

if TYPE_CHECKING:
    from disco_zoo.training.run import RunOptions


def set_option(what: str) -> Callable[[Any], Any]:
    """`--set KEY=VALUE`, repeatable; `what` it changes."""
    return click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help=f"{what}. Repeatable.")


DEVICE = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    default="auto",
    show_default=True,
    help="Where to compute.",
)
ENGINE_NAMES = click.Choice(["auto", "torch", "onnxruntime", "openvino"])
ENGINE_HELP = "What computes the features on a CPU; auto: the fastest that is installed and agrees with PyTorch."
JSON = click.option(
    "--json", "as_json", is_flag=True, help="Results as JSON on stdout; everything else goes to stderr."
)
DATA = click.option("--data", help="Images: folder, .tar, .parquet, hfds/NAME, or 'sample'. Training needs no labels.")
EVAL_DATA = click.option("--eval-data", help="Labelled images to measure on; default: the test split beside --data.")
OUT = click.option("--out", type=click.Path(path_type=Path), help="Run folder.  [default: runs/NAME]")
STEPS = click.option("--steps", type=click.IntRange(min=1), help="Stop after this many steps, for a look.")
RESUME = click.option("--resume", is_flag=True, help="Go on with the run in --out, exactly where it stopped.")
VIEW_WORKERS = click.option(
    "--workers",
    type=click.IntRange(min=0),
    help="Processes that draw views; the views are the same.  [default: cores - 1, at most 8]",
)
READ_WORKERS = click.option(
    "--workers", type=click.IntRange(min=0), help="Processes that read images.  [default: cores - 1, at most 8]"
)
SET = set_option("Change one key of the recipe, e.g. optim.epochs=2")
TRACKER = click.option(
    "--tracker",
    "trackers",
    multiple=True,
    metavar="NAME",
    help="Also send metrics to tensorboard, wandb, mlflow, trackio, or another tracker of Accelerate. Repeatable.",
)
_OPTIONS: list[Callable[[Any], Any]] = [
    DATA,
    EVAL_DATA,
    OUT,
    STEPS,
    RESUME,
    SET,
    click.option("--seed", type=int, help="Seed of initialisation, order and views.  [default: the recipe's, 0]"),
    DEVICE,
    VIEW_WORKERS,
    TRACKER,
    JSON,
]


def with_options(options: Sequence[Any]) -> Callable[[Any], Any]:
    """Add options and arguments to a command, in their order."""

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


run_options = with_options(_OPTIONS)  # of the commands that train from a recipe


def how_to_run(
    *, device: str, workers: int | None, resume: bool, steps: int | None, trackers: Sequence[str] = ()
) -> RunOptions:
    """The options of a command that trains, with what the user typed for the record."""
    from disco_zoo.core.console import console
    from disco_zoo.training.run import run_options

    console.quiet = not is_first_process()
    return run_options(device, workers, resume, steps, command_line(), trackers)


def command_line() -> str:
    """What the user typed, for the record."""
    return shlex.join(["disco-zoo", *sys.argv[1:]])
