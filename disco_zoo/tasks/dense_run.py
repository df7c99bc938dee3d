"""One run of detection or segmentation from backbone to figures: claim the folder, train, measure, write the facts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from disco_zoo.core.claimed_dir import FACTS
from disco_zoo.core.console import console
from disco_zoo.core.environment import hardware, now, versions
from disco_zoo.core.files import read_fault
from disco_zoo.core.process import peak_memory_mib
from disco_zoo.core.random_streams import stream_seed
from disco_zoo.core.schema import Section
from disco_zoo.errors import BadCheckpoint, BadRunFolder, require
from disco_zoo.models.encoder import backbone_fingerprint
from disco_zoo.models.load import NamedModel, load_model
from disco_zoo.tasks.dense_task import DenseTask, TaskPlan
from disco_zoo.tasks.run_settings import SETTINGS, read_settings
from disco_zoo.training.run import RunOptions
from disco_zoo.training.run_folder import RunFolder, RunSettings
from disco_zoo.training.task import Position
from disco_zoo.training.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class DenseJob:
    """What to train.

    Attributes:
        kind: of the task, which its random numbers depend on.
        product: what the run leaves behind, for a message.
        preset: name of the preset that `settings` began as, for the record.
        pretrained: False for a random start.
    """

    kind: ClassVar[str]
    product: ClassVar[str]

    model: str
    train: Any
    test: Any
    settings: Any
    preset: str
    pretrained: bool
    seed: int

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.train.class_names)

    def as_dict(self, **own: Any) -> dict[str, Any]:
        """All that decides the outcome, but for the images."""
        values = {"model": self.model, "pretrained": self.pretrained, "preset": self.preset, **own, "seed": self.seed}
        return {**values, **self.settings.model_dump(mode="json")}

    def report_notes(self) -> Sequence[str]:
        """Lines for the report: repairs, omissions, and what may cost accuracy."""
        raise NotImplementedError

    def check(self) -> None:
        """Find what cannot be trained before the model is loaded.

        Raises:
            MissingExtra: the package that draws is not installed.
        """
        require("matplotlib", "train")

    def build(self, named: NamedModel) -> nn.Module:
        """The network that learns."""
        raise NotImplementedError

    def plan(
        self, title: str, num_images: int, backbone_sha256: str, lr_factor: Callable[[int], float], **own: Any
    ) -> TaskPlan:
        """A plan by the settings that all jobs have; `own` are further fields of `TaskPlan`."""
        settings = self.settings
        return TaskPlan(
            title=title,
            data_name=self.train.name,
            num_images=num_images,
            fingerprint=self.train.fingerprint() + self.test.fingerprint() + backbone_sha256,
            steps=settings.steps,
            batch_size=settings.batch_size,
            lr=settings.lr,
            lr_factor=lr_factor,
            checkpoint_every=settings.checkpoint_every,
            seed=self.seed,
            **own,
        )

    def task(self, network: Any, options: RunOptions, backbone_sha256: str) -> DenseTask:
        raise NotImplementedError

    def facts(self, network: Any, named: NamedModel, done: Position) -> dict[str, Any]:
        """Facts of the run besides those that every job has."""
        raise NotImplementedError

    def data_facts(self, source: Any) -> dict[str, Any]:
        """Facts of the training or the test images."""
        return {"name": source.name, "images": len(source), "fingerprint": source.fingerprint()}

    def finish(self, network: Any, folder: RunFolder, name: str, options: RunOptions) -> dict[str, Any]:
        """Save and measure the trained network, which timm knows as `name`; return the facts of it."""
        raise NotImplementedError

    def write_report(self, folder: RunFolder) -> None:
        raise NotImplementedError


def run_dense(job: DenseJob, out: Path, options: RunOptions) -> dict[str, Any]:
    """Train a job's network, measure it when it is trained to the end, and return the facts of the run.

    Args:
        out: the run folder.

    Raises:
        BadRunFolder, TrainingDiverged, Interrupted, BadData: see `RunFolder` and `Trainer`.
    """
    job.check()
    started = now()
    named = load_model(job.model, pretrained=job.pretrained, seed=job.seed)
    sha256 = backbone_fingerprint(named.backbone)
    # New layers and the training draw the same whatever the backbone has drawn: a random start compares with ours.
    torch.manual_seed(stream_seed(job.kind, job.seed))
    network = job.build(named).to(options.device)
    folder = RunFolder(out, task_settings(job.as_dict()), resume=options.resume)
    for note in job.report_notes():
        console.print(f"Note: {note}", soft_wrap=True)
    try:
        if folder.kept:
            return _kept(job, folder, sha256, options)
        trainer = Trainer(job.task(network, options, sha256), folder)
        resume = options.resume and folder.checkpoint.is_file()
        done = trainer.train(resume=resume, max_steps=options.max_steps)
        facts = {
            "model": job.model,
            "pretrained": job.pretrained,
            "network": named.network,
            "backbone_sha256": sha256,
            "started": folder.read_json(FACTS).get("started", started),
            **_training_facts(job, done, options),
            **job.facts(network, named, done),
        }
        if done.step == job.settings.steps:
            facts |= job.finish(network, folder, named.network, options)
        folder.write_json(FACTS, {**facts, "ended": now()})
        job.write_report(folder)
        console.print(f"{job.product} and report are in {folder.path}", soft_wrap=True)
        return folder.read_json(FACTS)
    finally:
        folder.close()


def _kept(job: DenseJob, folder: RunFolder, sha256: str, options: RunOptions) -> dict[str, Any]:
    """The facts of a run that was finished before, which is said."""
    found = folder.kept
    images = [found["data"][split]["fingerprint"] for split in ("train", "test")] + [found["backbone_sha256"]]
    same = images == [job.train.fingerprint(), job.test.fingerprint(), sha256]
    folder.require_kept(images=same, total_steps=job.settings.steps, max_steps=options.max_steps)
    console.print(folder.kept_line, soft_wrap=True)
    return found


def task_settings(values: Mapping[str, Any]) -> RunSettings:
    """Settings that are written as `settings.json`."""
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    plain = json.loads(text)  # tuples become lists, as in the file

    def difference(stored: Path) -> str | None:
        former = read_settings(stored.parent, stored.name)
        for key in {**former, **plain}:
            if former.get(key) != plain.get(key):
                return f"{key}: {former.get(key)} there, {plain.get(key)} here"
        return None

    return RunSettings(SETTINGS, text, difference)


def _training_facts(job: DenseJob, done: Position, options: RunOptions) -> dict[str, Any]:
    return {
        "preset": job.preset,
        "command": options.command,
        "seed": job.seed,
        "steps": done.step,
        "total_steps": job.settings.steps,
        "training_seconds": round(done.seconds, 1),
        "peak_memory_mib": peak_memory_mib(options.device),
        "unreadable_images": len(done.unreadable),
        "class_names": list(job.class_names),
        "white": dict(job.train.ranges.white),  # in images of more than 8 bits
        "data": {"train": job.data_facts(job.train), "test": job.data_facts(job.test)},
        "look": {"train": dict(job.train.look), "test": dict(job.test.look)},
        "versions": versions(),
        "hardware": hardware(options.device),
    }


def finished_run(
    folder: Path, weights: str, model: type[Section], what: str, command: str
) -> tuple[dict[str, Any], Mapping[str, Any], Any]:
    """The facts of a finished run, its settings as written, and those that are `model`'s.

    Raises:
        BadRunFolder: the folder holds no trained network.
    """
    facts, settings = read_settings(folder, FACTS), read_settings(folder, SETTINGS)
    if not (folder / weights).is_file() or "figures" not in facts:
        raise BadRunFolder(f"{folder} holds no trained {what}. Type: disco-zoo {command} MODEL --data D --out {folder}")
    own = {key: value for key, value in settings.items() if key in model.model_fields}
    return facts, settings, model.model_validate_json(json.dumps(own))


def load_weights(network: nn.Module, path: Path) -> None:
    """Load a finished run's weights.

    Raises:
        BadCheckpoint: they are damaged, or not to be read for disk or memory.
    """
    try:
        network.load_state_dict(load_file(path), strict=True)
    except (OSError, SafetensorError, RuntimeError, MemoryError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadCheckpoint(f"{path} {read_fault(error, f'is damaged: {reason}')}") from error
