"""One run from a recipe, from data to report: `disco-zoo train`, and `disco_zoo.train`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from disco_zoo.config.recipe import Recipe, load_recipe, with_seed
from disco_zoo.core.distributed import peers
from disco_zoo.training.report import finish_training
from disco_zoo.training.run import Run, RunOptions, run_options
from disco_zoo.training.run_data import open_data
from disco_zoo.training.run_facts import RunFacts
from disco_zoo.training.run_folder import require_begun


def train(
    recipe: Recipe | str,
    data: str | None = None,
    out: Path | str | None = None,
    *,
    eval_data: str | None = None,
    overrides: Iterable[str] = (),
    seed: int | None = None,
    device: str = "auto",
    workers: int | None = None,
    resume: bool = False,
    max_steps: int | None = None,
    trackers: Sequence[str] = (),
) -> RunFacts | None:
    """Train a student, measure it where there are labels, and leave student, checkpoint and report in `out`.

    Args:
        recipe: a bundled recipe's name, a path to a .yaml, or what `load_recipe` gave.
        data: images: a folder, .tar, .parquet, hfds/NAME, or "sample"; None for the recipe's.
        out: run folder; None for runs/NAME.
        eval_data: labelled images to measure on; None for the test split beside `data`.
        overrides: keys of the recipe to change, e.g. ["optim.epochs=2"].
        seed: of initialisation, order and views; None for the recipe's.
        device, workers, trackers: see `run_options`.
        resume: go on with the run in `out`, exactly where it stopped.
        max_steps: stop after so many steps.

    Returns:
        What `run.json` holds, with "figures" in percent where labels exist; None in all processes but the first.

    Raises:
        DiscoZooError: its children say what is wrong with recipe, data or folder.
    """
    loaded = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, with_seed(tuple(overrides), seed))
    options = run_options(device, workers, resume, max_steps, "disco_zoo.train(...)", trackers)
    return train_into(Path(out or Path("runs") / loaded.name), loaded, data, eval_data, options)


def train_into(
    folder: Path, recipe: Recipe, data: str | None, eval_data: str | None, options: RunOptions
) -> RunFacts | None:
    """See `train`."""
    checkpoint = folder / "checkpoint.pt"
    if options.resume:
        require_begun(folder)
    sources = open_data(recipe, data, eval_data)

    def how_to_go_on() -> str:
        if checkpoint.is_file():
            return "The last checkpoint is kept; to go on, repeat the command with --resume"
        return "There was no checkpoint yet; repeat the command"

    with peers(how_to_go_on):
        run = Run(recipe, sources, folder, options, label=recipe.name)
        try:
            run.train()
            return finish_training(run)
        finally:
            run.close()
