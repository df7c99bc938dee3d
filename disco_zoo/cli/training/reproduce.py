"""`disco-zoo reproduce`: obtain a checkpoint again, with a verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from disco_zoo.cli.first_look import require_free_folder
from disco_zoo.cli.options import how_to_run, run_options


@click.command("reproduce")
@click.argument("name")
@run_options
def command(name: str, **given: Any) -> int:
    """Train NAME again, measure it beside baseline and teacher, and compare with the catalog.

    NAME is a checkpoint (disco-zoo list) or short for an architecture, like effb0: then the data decide the recipe,
    and without data it is the pocket recipe on the embedded sample. Exit code 0: reproduced, or not judged: a look
    (--steps), other data, a changed recipe, or a checkpoint measured with fewer than three seeds; 1: not reproduced;
    2: it could not run.

    \b
    Examples:
      disco-zoo reproduce effb0
      disco-zoo reproduce effb0 --steps 20
      disco-zoo reproduce disco_effb0.disco_lite0_cifar10 --data cifar10_train.parquet
    """
    return _reproduce(name, **given)


def _reproduce(
    name: str,
    *,
    data: str | None,
    eval_data: str | None,
    out: Path | None,
    steps: int | None,
    resume: bool,
    overrides: tuple[str, ...],
    seed: int | None,
    device: str,
    workers: int | None,
    trackers: tuple[str, ...],
    as_json: bool,
) -> int:
    import json

    require_free_folder(out or _usual_out(name, data, steps), resume)
    from disco_zoo.reproduction.reproduce import print_reproduction, reproduce_into

    options = how_to_run(device=device, workers=workers, resume=resume, steps=steps, trackers=trackers)
    rep = reproduce_into(out, name, data, eval_data, overrides, seed, options)
    if as_json:
        click.echo(json.dumps(rep.as_json()))
    else:
        print_reproduction(rep)
    return rep.verdict.exit_code


def _usual_out(name: str, data: str | None, steps: int | None) -> Path | None:
    """The default run folder; None for an unknown name, which `reproduce` reports."""
    from disco_zoo.errors import UnknownName
    from disco_zoo.zoo.choice import choose_checkpoint, default_out

    try:
        return default_out(choose_checkpoint(name, data).checkpoint.name, steps)
    except UnknownName:
        return None
