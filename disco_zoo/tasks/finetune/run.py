"""One fine-tuning from images to a classifier (`disco_zoo.finetune`).

Check, build, train, score, export, write down the facts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from disco_zoo.core.claimed_dir import FACTS
from disco_zoo.core.console import StepProgress, console
from disco_zoo.core.environment import hardware, now, versions
from disco_zoo.core.files import sha256_of, user_path
from disco_zoo.core.process import peak_memory_mib
from disco_zoo.core.yaml_io import read_yaml
from disco_zoo.data.dataset import ImageSource
from disco_zoo.data.open_source import open_source
from disco_zoo.data.pairing import open_test_beside
from disco_zoo.data.subsets import labeled_part, random_subset
from disco_zoo.data.summary import look_facts, tell
from disco_zoo.errors import BadData
from disco_zoo.evaluation.metrics import CONFIDENCE
from disco_zoo.models.classifier_dir import MODEL_FOLDER, WEIGHTS, require_storable, write_classifier
from disco_zoo.tasks.finetune.classes import class_names_of, few_per_class, hold_out, require_enough
from disco_zoo.tasks.finetune.report import model_card, write_report
from disco_zoo.tasks.finetune.scoring import Scores, score
from disco_zoo.tasks.finetune.settings import (
    SETTINGS,
    FinetuneSettings,
    difference,
    read_settings,
)
from disco_zoo.tasks.finetune.start import Start, build_start
from disco_zoo.tasks.finetune.task import FinetuneTask, network_facts
from disco_zoo.training.run import RunOptions, run_options
from disco_zoo.training.run_folder import RunFolder, RunSettings
from disco_zoo.training.trainer import Trainer


@dataclass(frozen=True)
class LabeledData:
    """Images whose labels mean the same.

    Attributes:
        train: all training images there are.
        test: None where there are none; it never chooses anything.
        names: of the classes, in the order of their labels.
    """

    train: ImageSource
    test: ImageSource | None
    names: tuple[str, ...]


def open_labeled(data: str, eval_data: str | None = None) -> LabeledData:
    """Open images to fine-tune on, and the test images beside them where there are any.

    Raises:
        BadData: they cannot be read, or no classifier can be trained or measured on them.
    """
    train = open_source(data, "train")
    tell(train)
    test = open_test_beside(train, eval_data)
    train = labeled_part(train)
    return LabeledData(train, test, class_names_of(train, test))


def finetune_into(settings: FinetuneSettings, data: LabeledData, path: Path, options: RunOptions) -> dict[str, Any]:
    """Train, or go on with `options.resume`; leave classifier, figures and report in `path`.

    Returns:
        What `run.json` holds: settings, data, figures in percent, time, versions, hardware.

    Raises:
        DiscoZooError: its children say what is wrong with model, data, settings or folder.
    """
    train, held_out = training_split(settings, data)
    settings = settings.resolved(len(train))
    start = build_start(settings, data.names)
    test = test_images(settings, data)
    folder = RunFolder(path, finetune_settings(settings), resume=options.resume)
    try:
        if folder.kept:
            return _kept(folder, train, test, options)
        task = FinetuneTask(
            start.classifier,
            train,
            held_out,
            settings,
            device=options.device,
            workers=options.workers,
            label=f"fine-tuning {settings.model}",
        )
        require_storable(folder.path, start.classifier, settings.model)
        started = folder.read_json(FACTS).get("started", now())
        resume = options.resume and folder.checkpoint.is_file()
        trainer = Trainer(task, folder, trackers=options.trackers, settings=settings.as_dict())
        trainer.train(resume=resume, max_steps=options.max_steps)
        judge = test or held_out
        scores = None if judge is None else _scored(task, judge)
        facts = _facts(task, start, data, test, scores, options, started)
        _leave(folder, task, facts, scores)
    finally:
        folder.close()
    return facts


def _kept(folder: RunFolder, train: ImageSource, test: ImageSource | None, options: RunOptions) -> dict[str, Any]:
    """The facts of a run that was finished before, which is said."""
    found = folder.kept["data"]
    same = (found["fingerprint"], found.get("test_fingerprint")) == (train.fingerprint(), _fingerprint(test))
    folder.require_kept(images=same, total_steps=folder.kept["total_steps"], max_steps=options.max_steps)
    console.print(folder.kept_line, soft_wrap=True)
    return folder.kept


def test_images(settings: FinetuneSettings, data: LabeledData) -> ImageSource | None:
    """The test images that measure, by the settings."""
    return None if data.test is None else random_subset(data.test, settings.max_test_images)


def _fingerprint(test: ImageSource | None) -> str | None:
    return None if test is None else test.fingerprint()


def finetune_settings(settings: FinetuneSettings) -> RunSettings:
    """Resolved settings, which are written as `finetune.yaml`."""

    def other_than(stored: Path) -> str | None:
        former = read_yaml(stored.read_text(encoding="utf-8"))[0]
        return difference(former if isinstance(former, dict) else {}, settings.as_dict())

    return RunSettings(SETTINGS, settings.as_yaml(), other_than)


def training_split(settings: FinetuneSettings, data: LabeledData) -> tuple[ImageSource, ImageSource | None]:
    """The images that train and the ones that choose, by the settings.

    Raises:
        BadData: a class has fewer images than `few`.
    """
    train: ImageSource = data.train
    if settings.few is not None:
        assert train.labels is not None
        require_enough(train.labels, data.names, settings.few, train.name)
        train = few_per_class(train, settings.few, settings.seed)
    train, held_out = hold_out(train, settings.held_out, settings.seed)
    if settings.held_out and held_out is None:
        raise BadData(f"{data.train.name} has one image a class: none can be held out. Add --set val_fraction=0")
    return train, held_out


def _scored(task: FinetuneTask, source: ImageSource) -> Scores:
    with StepProgress("scoring", len(source)) as bar:
        return score(task.classifier, source, device=task.device, workers=task.workers, progress=bar.update)


def _leave(folder: RunFolder, task: FinetuneTask, facts: dict[str, Any], scores: Scores | None) -> None:
    """Write the classifier, then the facts, which name its sha256, then report and pictures."""
    provenance = {key: facts[key] for key in ("name", "settings", "data", "figures", "versions")}
    provenance["settings"] = {**facts["settings"], "model": facts["name"]}  # a path here is nobody else's business
    write_classifier(
        folder.path / MODEL_FOLDER,
        task.classifier,
        facts=provenance,
        card=model_card(facts),
        description=f"{facts['name']} fine-tuned on {facts['data']['name']}",
    )
    facts["model"]["sha256"] = sha256_of(folder.path / MODEL_FOLDER / WEIGHTS)
    folder.write_json(FACTS, facts)
    write_report(folder, facts, scores)


def _facts(
    task: FinetuneTask,
    start: Start,
    data: LabeledData,
    test: ImageSource | None,
    scores: Scores | None,
    options: RunOptions,
    started: str,
) -> dict[str, Any]:
    position, settings = task.position, task.settings
    peak = peak_memory_mib(torch.device(task.device))
    return {
        "name": shown_model(settings.model),
        "command": options.command,
        "started": started,
        "ended": now(),
        "finished": task.finished,
        "settings": settings.as_dict(),
        "settings_sha256": settings.digest(),
        "continued_head": start.continues,
        "steps": position.step,
        "total_steps": task.total_steps,
        "best_epoch": position.best_epoch or None,
        "stopped_early": position.stopped,
        "training_seconds": round(position.seconds, 1),
        "images_per_s": round(position.images_per_s(_mean_batch(task)), 1),
        "peak_memory_mib": None if peak is None else round(peak, 1),
        "unreadable_images": len(position.unreadable),
        "data": {
            "name": Path(data.train.name).name,
            "train_images": len(task.train_source),
            "held_out_images": len(task.held_out or ()),
            "test_images": len(test or ()),
            "fingerprint": task.train_source.fingerprint(),
            "test_fingerprint": _fingerprint(test),
        },
        # Beside the data: it holds the user's paths, and `data` goes into the classifier's folder.
        "look": {"train": look_facts(data.train), "test": None if test is None else look_facts(test)},
        "model": network_facts(task.classifier),
        "measured_on": None if scores is None else "test" if test is not None else "held-out",
        "figures": {} if scores is None else scores.as_json(),
        "confidence": CONFIDENCE,
        "versions": versions(),
        "hardware": hardware(task.device),
    }


def shown_model(model: str) -> str:
    """A name as it is; of a folder its own name, of a run folder's `model` the run's."""
    path = user_path(model)
    if not path.exists():
        return model
    path = path.resolve()
    return path.parent.name if path.name == MODEL_FOLDER else path.name


def _mean_batch(task: FinetuneTask) -> float:
    return len(task.train_source) / task.steps_per_epoch


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
