"""One detector from backbone to figures: claim the folder, train, measure, draw, write down the facts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from disco_zoo.core.checkpoint import save_tensors, write_atomically
from disco_zoo.core.console import StepProgress, console
from disco_zoo.core.environment import hardware, now, versions
from disco_zoo.core.files import sha256_of
from disco_zoo.core.process import peak_memory_mib
from disco_zoo.core.random_streams import stream_seed
from disco_zoo.errors import BadData, require, shown
from disco_zoo.models.encoder import backbone_fingerprint
from disco_zoo.models.load import load_model
from disco_zoo.tasks.dense_task import DenseTask, log_once
from disco_zoo.tasks.detection.annotations import EXTRA, AnnotatedSet, has_outline
from disco_zoo.tasks.detection.average_precision import measure_detector
from disco_zoo.tasks.detection.batches import TrainImages
from disco_zoo.tasks.detection.network import build_detector
from disco_zoo.tasks.detection.report import write_report
from disco_zoo.tasks.detection.settings import DetectionSettings, size_notes
from disco_zoo.tasks.detection.task import detector_task, measure_precisely
from disco_zoo.tasks.run_settings import task_settings
from disco_zoo.training.run import RunOptions
from disco_zoo.training.run_folder import RunFolder
from disco_zoo.training.task import Position
from disco_zoo.training.trainer import Trainer

CURVE = ("box_ap", "box_ap50", "mask_ap", "mask_ap50")
DETECTOR = "detector.safetensors"


@dataclass(frozen=True)
class DetectionJob:
    """What to train.

    Attributes:
        preset: name of the preset that `settings` began as, for the record.
        pretrained: False for a random start.
    """

    model: str
    train: AnnotatedSet
    test: AnnotatedSet
    settings: DetectionSettings
    preset: str
    masks: bool
    freeze: bool
    pretrained: bool
    seed: int

    def as_dict(self) -> dict[str, Any]:
        """All that decides the outcome, but for the images."""
        return {
            "model": self.model,
            "pretrained": self.pretrained,
            "preset": self.preset,
            "masks": self.masks,
            "freeze": self.freeze,
            "seed": self.seed,
            **self.settings.model_dump(mode="json"),
        }

    def notes(self) -> list[str]:
        """Lines for the report: repairs, omissions, and what may cost accuracy."""
        return [*self.train.notes, *self.test.notes, *size_notes(self.train, self.settings)]

    def check(self) -> None:
        """Find what cannot be trained before the model is loaded.

        Raises:
            BadData: masks are wanted and objects have none.
            MissingExtra: the evaluator is not installed.
        """
        for module in ("faster_coco_eval", "matplotlib"):
            require(module, EXTRA)
        for annotated in (self.train, self.test) if self.masks else ():
            without = [
                image
                for image in annotated.images
                for instance in image.instances
                if not has_outline(instance.outline, image.height, image.width)
            ]
            if without:
                raise BadData(
                    f"{annotated.name} has {len(without)} objects without an outline, the first in "
                    f"{shown(without[0].path.name)}. Leave out --masks"
                )


def run_detection(job: DetectionJob, out: Path, options: RunOptions) -> dict[str, Any]:
    """Train a detector, measure it when it is trained to the end, and return the facts of the run.

    Args:
        out: the run folder.

    Raises:
        BadRunFolder, TrainingDiverged, Interrupted, BadData: see `RunFolder` and `Trainer`.
    """
    started = now()
    named = load_model(job.model, pretrained=job.pretrained, seed=job.seed)
    sha256 = backbone_fingerprint(named.backbone)
    # New layers and the training draw the same whatever the backbone has drawn: a random start compares with ours.
    torch.manual_seed(stream_seed("detection", job.seed))
    detector = build_detector(
        named.backbone,
        len(job.train.class_names),
        job.settings,
        mean=named.mean,
        std=named.std,
        masks=job.masks,
        freeze=job.freeze,
        title=job.model,
    ).to(options.device)
    folder = RunFolder(out, task_settings(job.as_dict()), resume=options.resume)
    for note in job.notes():
        console.print(f"Note: {note}", soft_wrap=True)
    try:
        images = TrainImages(job.train, job.seed, job.masks)
        task = _task(job, detector, images, options, sha256)
        resume = options.resume and folder.checkpoint.is_file()
        done = Trainer(task, folder).train(resume=resume, max_steps=options.max_steps)
        facts = {
            "model": job.model,
            "pretrained": job.pretrained,
            "network": named.network,
            "backbone_sha256": sha256,
            "mean": list(named.mean),
            "std": list(named.std),
            "started": folder.read_json("run.json").get("started", started),
            **_training_facts(job, done, detector, options),
        }
        if done.step == job.settings.steps:
            facts |= _finish(job, detector, images, folder, named.network, options)
        folder.write_json("run.json", {**facts, "ended": now()})
        write_report(folder, job.notes())
        console.print(f"Detector and report are in {folder.path}", soft_wrap=True)
        return folder.read_json("run.json")
    finally:
        folder.close()


def _training_facts(job: DetectionJob, done: Position, detector: Any, options: RunOptions) -> dict[str, Any]:
    return {
        "preset": job.preset,
        "command": options.command,
        "seed": job.seed,
        "steps": done.step,
        "total_steps": job.settings.steps,
        "ap_points": job.settings.ap_points,
        "training_seconds": round(done.seconds, 1),
        "images_per_s": round(done.images_per_s(job.settings.batch_size), 2),
        "peak_memory_mib": peak_memory_mib(options.device),
        "unreadable_images": len(done.unreadable),
        "parameters": sum(p.numel() for p in detector.parameters()),
        "class_names": list(job.train.class_names),
        "data": {"train": _data_facts(job.train), "test": _data_facts(job.test)},
        "look": {"train": dict(job.train.look), "test": dict(job.test.look)},
        "versions": versions(),
        "hardware": hardware(),
    }


def _task(job: DetectionJob, detector: Any, images: TrainImages, options: RunOptions, sha256: str) -> DenseTask:
    def measure() -> dict[str, float]:
        figures, _ = measure_detector(
            detector, job.test, job.settings, masks=job.masks, device=options.device, workers=options.workers
        )
        return _curve_figures(figures)

    return detector_task(
        detector,
        images,
        job.settings,
        data_name=job.train.name,
        fingerprint=job.train.fingerprint() + job.test.fingerprint() + sha256,
        device=options.device,
        workers=options.workers,
        measure=measure if job.settings.eval_every else None,
    )


def _finish(
    job: DetectionJob, detector: Any, images: TrainImages, folder: RunFolder, network: str, options: RunOptions
) -> dict[str, Any]:
    """Save and measure a trained detector; draw what it finds."""
    from disco_zoo.tasks.detection.report import LEGEND, draw_sheet

    measure_precisely(detector, images, job.settings, options.device, options.workers)
    path = folder.path / DETECTOR
    write_atomically(path, lambda partial: save_tensors(detector.state_dict(), partial, network))
    with StepProgress("measuring", len(job.test)) as progress:
        figures, detections = measure_detector(
            detector,
            job.test,
            job.settings,
            masks=job.masks,
            device=options.device,
            workers=options.workers,
            progress=progress.update,
        )
    log_once(folder, job.settings.steps, _curve_figures(figures))
    heading = f"{job.model} on {job.test.name}\n{LEGEND}"
    draw_sheet(job.test, detections, folder.figures / "detections.png", heading)
    return {"detector": {"file": DETECTOR, "sha256": sha256_of(path)}, "figures": figures}


def _curve_figures(figures: dict[str, Any]) -> dict[str, float]:
    return {key: figures[key] for key in CURVE if figures.get(key) is not None}


def _data_facts(annotated: AnnotatedSet) -> dict[str, Any]:
    boxes = annotated.boxes_by_class()
    return {
        "name": annotated.name,
        "images": len(annotated),
        "boxes": sum(boxes.values()),
        "fingerprint": annotated.fingerprint(),
        "notes": list(annotated.notes),
    }
