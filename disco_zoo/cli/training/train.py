"""`disco-zoo train`: one run of one recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from disco_zoo.cli.first_look import require_data, require_free_folder
from disco_zoo.cli.options import how_to_run, run_options


def _list_recipes(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from disco_zoo.config.recipe import bundled_recipes

        click.echo("\n".join(bundled_recipes()))
        ctx.exit()


@click.command("train")
@click.argument("recipe")
@click.option(
    "--list", is_flag=True, is_eager=True, expose_value=False, callback=_list_recipes, help="Name the bundled recipes."
)
@click.option("--print", "print_only", is_flag=True, help="Print the full resolved recipe and stop.")
@click.option(
    "--start-only", is_flag=True, help="Train nothing: the run folder holds the start, to measure beside the student."
)
@run_options
def command(recipe: str, print_only: bool, overrides: tuple[str, ...], seed: int | None, **given: Any) -> None:
    """Train from RECIPE, a bundled recipe's name or a path to a .yaml.

    \b
    Examples:
      disco-zoo train pocket/disco_effb0.disco_lite0_fmnist --print
      disco-zoo train disco_effb0.disco_lite0_cifar10 --data cifar10_train.parquet
      disco-zoo train my_recipe.yaml --data photos/ --set optim.epochs=2
      disco-zoo train disco_effb0.disco_lite0_cifar10 --data cifar10_train.parquet --start-only --out runs/start
    """
    if not print_only:
        require_data(given["data"], given["eval_data"])
        require_free_folder(given["out"] or Path("runs") / recipe.rpartition("/")[2], given["resume"])
    from disco_zoo.config.recipe import load_recipe, with_seed

    loaded = load_recipe(recipe, with_seed(overrides, seed))
    if print_only:
        click.echo(loaded.as_yaml(), nl=False)
        return
    _train(loaded, **given)


def _train(
    recipe: Any,
    *,
    data: str | None,
    eval_data: str | None,
    out: Path | None,
    steps: int | None,
    resume: bool,
    device: str,
    workers: int | None,
    trackers: tuple[str, ...],
    as_json: bool,
    start_only: bool,
) -> None:
    import json

    from disco_zoo.core.launcher import was_restarted
    from disco_zoo.training.train import train_into

    if start_only and (resume or steps is not None):
        raise click.UsageError("--start-only takes no steps: leave out --steps and --resume")
    folder = out or Path("runs") / recipe.name
    # A restarted command has the arguments of the first time, which did not say --resume.
    resume = resume or (was_restarted() and (folder / "checkpoint.pt").is_file())
    options = how_to_run(
        device=device, workers=workers, resume=resume, steps=0 if start_only else steps, trackers=trackers
    )
    facts = train_into(folder, recipe, data, eval_data, options)
    if as_json and facts is not None:
        click.echo(json.dumps(facts))
