"""The command line: one file a verb, imported only when that verb is typed.

So `--help` and `list` answer without importing torch. A new verb is one line in `VERBS` and a module whose
`command` is a click command; what a command returns is the exit code (None is 0).
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from disco_zoo.cli.without_compiler import spare_compiler
from disco_zoo.core.files import says_no_room, why_not_written
from disco_zoo.core.interrupts import launchers_signals_as_interrupts
from disco_zoo.core.launcher import give_way_to_first_process, num_launched
from disco_zoo.errors import DiscoZooError, Interrupted, UnknownName, did_you_mean

# verb -> (module, its line in `disco-zoo --help`); the line stands here so that help imports no verb.
VERBS: dict[str, tuple[str, str]] = {
    "list": ("disco_zoo.cli.zoo.list", "Show the zoo: models, figures, licences, weights."),
    "show": ("disco_zoo.cli.zoo.show", "Show all that is known of one model or teacher."),
    "download": ("disco_zoo.cli.zoo.download", "Have a model's weights on this machine, verified."),
    "verify": ("disco_zoo.cli.zoo.verify", "Check weights: sha256, names, shapes, golden features."),
    "convert": ("disco_zoo.cli.zoo.convert", "Turn an authors' checkpoint into safetensors, strictly."),
    "publish": ("disco_zoo.cli.zoo.publish", "Publish a model's weights on the Hugging Face Hub."),
    "reproduce": (
        "disco_zoo.cli.training.reproduce",
        "Train a model of the zoo again, measure it, and give a verdict.",
    ),
    "plan": ("disco_zoo.cli.training.plan", "Say what a training will cost, before it runs."),
    "train": ("disco_zoo.cli.training.train", "Train from a recipe."),
    "cache": ("disco_zoo.cli.training.cache", "Teacher embeddings of views, computed once: build, list, verify, rm."),
    "compare": ("disco_zoo.cli.training.compare", "Train several recipes on one budget: one table, one picture."),
    "evaluate": ("disco_zoo.cli.use.evaluate", "Measure a model: knn, linear, semi, transfer; put results in a table."),
    "finetune": ("disco_zoo.cli.use.finetune", "Train a classifier from a model on labelled images."),
    "detect": ("disco_zoo.cli.use.detect", "Train and measure a detector on a model."),
    "segment": ("disco_zoo.cli.use.segment", "Measure a linear segmentation head on a model."),
    "data": (
        "disco_zoo.cli.use.data",
        "Look at images before a training; pack them into shards, resized once; index shards.",
    ),
    "embed": ("disco_zoo.cli.use.embed", "Features of images, as a parquet or npy file."),
    "search": ("disco_zoo.cli.use.search", "The nearest images of a query, as a page to look at."),
    "map": ("disco_zoo.cli.use.map", "Draw embedded images as a map."),
    "export": ("disco_zoo.cli.use.export", "ONNX, OpenVINO, phones; checked against PyTorch; int8."),
    "site": ("disco_zoo.cli.zoo.site", "The zoo as a page for a browser: filter, sort, chart, cards."),
    "card": ("disco_zoo.cli.zoo.card", "Print a model card, or refresh all that is generated from the catalog."),
}

_MAKE_ROOM = "Make room or choose another --out; a run goes on with --resume"

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells count


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*VERBS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(VERBS[cmd_name][0]).command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        verb = args[0]
        if verb not in VERBS and not verb.startswith("-"):
            raise UnknownName(f"There is no command '{verb}'.{did_you_mean(verb, VERBS)} Type: disco-zoo --help")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, line) for verb, (_, line) in VERBS.items()])


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from disco_zoo.core.environment import versions

        found = versions()
        width = max(map(len, found))
        click.echo(f"disco-zoo {found.pop('disco-zoo')}")
        click.echo("\n".join(f"  {name:<{width}} {version}" for name, version in found.items()))
        ctx.exit()


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="First contact, in minutes and without a network: disco-zoo reproduce effb0",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version, and those of what it computes with.",
)
def cli() -> None:
    """Small self-supervised vision backbones, each obtained again by one command."""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    An error the user can mend ends as one line on stderr and exit code 2, without a traceback.
    """
    if args is None:  # the process is this command's
        spare_compiler()
    # Of several processes the launcher ends those that wait for one that failed.
    signals = launchers_signals_as_interrupts() if num_launched() == 1 else contextlib.nullcontext()
    try:
        with signals:
            result = cli.main(args=None if args is None else [*args], prog_name="disco-zoo", standalone_mode=False)
    except Interrupted as error:
        print(f"Interrupted: {error}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except DiscoZooError as error:
        give_way_to_first_process()
        print(f"Error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except click.ClickException as error:
        give_way_to_first_process()
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):  # click turns Ctrl-C into Abort
        return EXIT_INTERRUPTED
    except Exception as error:
        advice = _advice(error)
        if advice is None:
            raise
        reason = getattr(error, "strerror", None) or why_not_written(error)
        what = getattr(error, "filename", None) or "a file of the run"
        print(f"Error: {reason}: {what}. {advice}", file=sys.stderr)
        return EXIT_USER_ERROR
    return result if isinstance(result, int) else 0


def _advice(error: Exception) -> str | None:
    """What to do about an error of the system that any read or write may meet; None for all others."""
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return "Give a shorter name"
    return _MAKE_ROOM if says_no_room(error) else None


def entry_point(args: Sequence[str] | None = None) -> NoReturn:
    """`python -m disco_zoo`, which launchers start: `main`, and the process ends with its exit code."""
    code = main(args)
    if code and num_launched() > 1:
        # A collective that lost its peer leaves threads behind. One that asks for Python while it is taken down
        # aborts the process, with a message of C++ after ours and another exit code.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
