"""`disco-zoo cache`: teacher embeddings of augmented views, computed once and replayed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from disco_zoo.cli.options import DATA, DEVICE, JSON, SET, VIEW_WORKERS, with_options
from disco_zoo.core.launcher import chosen_device, default_workers

if TYPE_CHECKING:
    from disco_zoo.teacher_cache.cache_dir import CacheFolder

EXIT_FAILED = 1

_BUILD_OPTIONS = with_options(
    [
        click.argument("recipe"),
        click.option(
            "--views", type=click.IntRange(min=1), help="Views of each image.  [default: teacher.cache_views]"
        ),
        DATA,
        SET,
        click.option("--seed", type=int, help="Seed of the views.  [default: the recipe's]"),
        DEVICE,
        VIEW_WORKERS,
    ]
)


@click.group("cache")
def command() -> None:
    """Teacher embeddings of augmented views, computed once, replayed by epochs, students and methods.

    Training with --set teacher.cache_views=M builds by itself what is missing. Caches lie in $DISCO_ZOO_CACHE
    (default ~/.cache/disco-zoo). Each fits one teacher, one set of images, one view recipe, one size, one seed.
    """


@command.command("build")
@_BUILD_OPTIONS
def build(
    recipe: str,
    views: int | None,
    overrides: tuple[str, ...],
    seed: int | None,
    data: str | None,
    device: str,
    workers: int | None,
) -> None:
    """Run the teacher over M views of every image of RECIPE's data; go on where a former build stopped.

    \b
    Examples:
      disco-zoo cache build disco_r18.disco_lite0_cifar10 --views 8 --data cifar10_train.parquet
      torchrun --standalone --nproc-per-node 4 -m disco_zoo cache build my_recipe.yaml --views 8 --data photos/
    """
    from disco_zoo.config.recipe import load_recipe, with_seed
    from disco_zoo.core.distributed import peers
    from disco_zoo.core.launcher import rendezvous_errors
    from disco_zoo.errors import BadRecipe
    from disco_zoo.methods import METHODS
    from disco_zoo.training.accelerator import make_accelerator
    from disco_zoo.training.build import seeded_teacher
    from disco_zoo.training.replay import replay_for
    from disco_zoo.training.run_data import open_training_images

    chosen = with_seed(overrides, seed)
    loaded = load_recipe(recipe, chosen)
    if loaded.teacher is None:
        raise click.UsageError(f"{loaded.method['name']} has no teacher")
    if views is not None:
        try:
            loaded = load_recipe(recipe, [*chosen, f"teacher.cache_views={views}"])
        except BadRecipe as error:
            raise BadRecipe(str(error).replace("--set teacher.cache_views=", "--views ")) from None
    if loaded.teacher is None or loaded.teacher.cache_views is None:
        views_a_step = METHODS[loaded.method["name"]].num_views
        enough = min(max(8 // views_a_step, 1), loaded.optim.epochs) * views_a_step
        raise click.UsageError(f"how many views of each image? Type: --views {enough}")
    with rendezvous_errors():
        accelerator = make_accelerator(loaded, chosen_device(device))
    teacher, source = seeded_teacher(loaded, accelerator.device), open_training_images(loaded, data)
    with peers(lambda: "What is finished is kept; to go on, repeat the command"):
        replay = replay_for(
            loaded,
            teacher,
            source,
            accelerator=accelerator,
            workers=default_workers() if workers is None else workers,
        )
    if accelerator.is_main_process and replay is not None:
        for kind in replay.kinds:
            cache = kind.rows.cache
            click.echo(f"{cache.path.name}: {kind.rows.slots} views of {cache.images} images, {_megabytes(cache)}")


@command.command("list")
@JSON
def show_all(as_json: bool) -> None:
    """Show the caches on this machine."""
    from disco_zoo.teacher_cache.inventory import caches, faults, print_caches, state_of

    print_caches([state_of(cache) for cache in caches()], as_json)
    for fault in faults():
        click.echo(fault, err=True)


@command.command("verify")
@click.argument("ids", metavar="[ID]...", nargs=-1)
def verify(ids: tuple[str, ...]) -> int:
    """Read caches (by default all) and check every block; damaged ones are struck out, to be built again.

    Exit code 1 if one is damaged.
    """
    from disco_zoo.teacher_cache.inventory import caches, faults, find_cache, state_of, views_text

    failed = False
    for fault in [] if ids else faults():
        failed = True
        click.echo(fault, err=True)
    for cache in [find_cache(name) for name in ids] if ids else caches():
        with cache.claimed():
            total, damaged = len(list(cache.journal.read())), cache.damaged()
            if damaged:
                cache.strike_out(damaged)
        failed |= bool(damaged)
        verdict = f"FAILED, {len(damaged)} of {total} blocks are damaged: repeat the build" if damaged else "verified"
        click.echo(f"{cache.path.name}: {verdict} ({views_text(state_of(cache))} views)")
    return EXIT_FAILED if failed else 0


@command.command("rm")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Remove all caches.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove(ids: tuple[str, ...], everything: bool, yes: bool) -> None:
    """Remove caches by ID, or by the beginning of one."""
    from disco_zoo.teacher_cache import inventory

    if bool(ids) == everything:
        raise click.UsageError("name caches by ID, or type --all. IDs: disco-zoo cache list")
    found = inventory.folders() if everything else [inventory.find_cache(name) for name in ids]
    chosen = list({cache.path: cache for cache in found}.values())
    if not chosen or not (yes or _agreed(chosen)):
        click.echo("nothing removed", err=True)
        return
    for cache in chosen:
        size = _megabytes(cache)
        inventory.remove(cache)
        click.echo(f"removed {cache.path.name}, {size}", err=True)


def _agreed(caches: list[CacheFolder]) -> bool:
    what = caches[0].path.name if len(caches) == 1 else f"{len(caches)} caches"
    try:
        return click.confirm(f"Remove {what} ({_megabytes(*caches)})?", err=True)
    except click.Abort as error:
        if isinstance(error.__context__, EOFError):
            click.echo(err=True)  # ends the line of the question
            raise click.UsageError("nobody answered, nothing is removed. To do it unasked, type: --yes") from None
        raise


def _megabytes(*caches: CacheFolder) -> str:
    return f"{sum(cache.size_bytes for cache in caches) / 1e6:.1f} MB"
