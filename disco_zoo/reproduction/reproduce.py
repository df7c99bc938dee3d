"""Trains a checkpoint of the zoo again and judges the result: `disco_zoo.reproduce`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from disco_zoo.core.launcher import num_launched
from disco_zoo.data.open_source import open_source
from disco_zoo.errors import DiscoZooError, UnknownName
from disco_zoo.reproduction.job import Reproduction, reproduce_choice
from disco_zoo.reproduction.report import write_reproduction
from disco_zoo.training.run import RunOptions, run_options
from disco_zoo.zoo.choice import choose_checkpoint, default_out


def reproduce(
    name: str,
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
) -> Reproduction:
    """Train a checkpoint's baseline and student from its recipe, measure all, compare with the catalog.

    Args:
        name: a checkpoint, or the short name of an architecture, e.g. "effb0".
        data: the images of its data set; None for the pocket recipe on the embedded sample.
        out: run folder; None for runs/NAME. It gets the student, report.md, results.json and the card.
        eval_data: labelled images to measure on; None for the test split beside `data`.
        overrides, seed: change the recipe; then the figures are not judged.
        device, workers, resume, max_steps, trackers: as in `disco_zoo.train`.

    Returns:
        Figures in percent by subject and metric, and the verdict.

    Raises:
        DiscoZooError: it cannot be carried out; nothing that was there is lost.
    """
    options = run_options(device, workers, resume, max_steps, "disco_zoo.reproduce(...)", trackers)
    return reproduce_into(None if out is None else Path(out), name, data, eval_data, tuple(overrides), seed, options)


def reproduce_into(
    out: Path | None,
    name: str,
    data: str | None,
    eval_data: str | None,
    overrides: Iterable[str],
    seed: int | None,
    options: RunOptions,
) -> Reproduction:
    """See `reproduce`."""
    if num_launched() > 1:
        raise DiscoZooError(
            "reproduce trains, measures and judges in one process. On several: launch disco-zoo train RECIPE, then "
            "disco-zoo evaluate its run folder"
        )
    try:
        choice = choose_checkpoint(name, data)
    except UnknownName:
        if data is not None:
            open_source(data)  # data that are not there are the likelier mistake, and told first
        raise
    folder = out or default_out(choice.checkpoint.name, options.max_steps)
    rep = reproduce_choice(
        choice, data=data, eval_data=eval_data, out=folder, overrides=overrides, seed=seed, options=options
    )
    try:
        write_reproduction(rep, options.command)
    finally:
        rep.folder.close()
    return rep
