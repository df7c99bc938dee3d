"""A classifier from a backbone and labelled images: `disco_zoo.finetune`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from disco_zoo.tasks.finetune.run import finetune_into, open_labeled
from disco_zoo.tasks.finetune.settings import read_settings
from disco_zoo.training.run import run_options


def finetune(
    model: str,
    data: str,
    out: Path | str,
    *,
    eval_data: str | None = None,
    device: str = "auto",
    workers: int | None = None,
    resume: bool = False,
    max_steps: int | None = None,
    trackers: Sequence[str] = (),
    **settings: Any,
) -> dict[str, Any]:
    """Train a classifier, measure it on the test images, and leave it in timm's Hub format in `out`/model.

    Args:
        model: a zoo or timm name, a run folder, or a classifier of this function, which goes on.
        data: a folder with a subfolder a class, or a .parquet; `eval_data` has test images, None for those beside it.
        device, workers, resume, max_steps, trackers: as in `disco_zoo.train`.
        settings: fields of `FinetuneSettings`, e.g. epochs=5, class_weights="balanced", image_size=224.

    Returns:
        What `run.json` holds: settings, figures in percent, time, versions.

    Raises:
        BadRecipe: unknown settings or values; all faults at once.
        DiscoZooError: its children say what is wrong with model, data or folder.
    """
    read = read_settings({"model": model, **settings})
    options = run_options(device, workers, resume, max_steps, "disco_zoo.finetune(...)", trackers)
    return finetune_into(read, open_labeled(data, eval_data), Path(out), options)
