"""A linear segmentation head from backbone to figures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from disco_zoo.core.checkpoint import save_tensors, write_atomically
from disco_zoo.core.console import StepProgress, console, duration
from disco_zoo.core.environment import hardware, now, versions
from disco_zoo.core.process import peak_memory_mib
from disco_zoo.core.random_streams import stream_seed
from disco_zoo.errors import require
from disco_zoo.models.encoder import backbone_fingerprint
from disco_zoo.models.load import load_model
from disco_zoo.plotting.style import plot_curves
from disco_zoo.tasks.dense_task import Batch, DenseTask, TaskPlan, curve_rows, log_once
from disco_zoo.tasks.run_settings import look_lines, task_settings
from disco_zoo.tasks.segmentation.batches import CroppedImages, train_loader
from disco_zoo.tasks.segmentation.data import IGNORED, MaskedSet
from disco_zoo.tasks.segmentation.head import LinearSegmenter
from disco_zoo.tasks.segmentation.measure import draw_masks, measure_segmenter
from disco_zoo.tasks.segmentation.settings import SegmentationSettings
from disco_zoo.training.metrics import read_metrics
from disco_zoo.training.run import RunOptions
from disco_zoo.training.run_folder import RunFolder
from disco_zoo.training.task import Position
from disco_zoo.training.trainer import Trainer

HEAD = "head.safetensors"


@dataclass(frozen=True)
class SegmentationJob:
    """What to train; `train` and `test` come from `check_masks`; `notes` go into the report."""

    model: str
    train: MaskedSet
    test: MaskedSet
    settings: SegmentationSettings
    preset: str
    pretrained: bool
    seed: int
    notes: tuple[str, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        assert self.train.class_names is not None
        return self.train.class_names

    def as_dict(self) -> dict[str, Any]:
        """All that decides the outcome, but for the images."""
        return {
            "model": self.model,
            "pretrained": self.pretrained,
            "preset": self.preset,
            "seed": self.seed,
            **self.settings.model_dump(mode="json"),
        }


def run_segmentation(job: SegmentationJob, out: Path, options: RunOptions) -> dict[str, Any]:
    """Train a head on the frozen backbone, measure it when it is trained to the end, and return the facts.

    Raises:
        BadRunFolder, TrainingDiverged, Interrupted, BadData: see `RunFolder` and `Trainer`.
    """
    require("matplotlib", "train")
    started = now()
    named = load_model(job.model, pretrained=job.pretrained, seed=job.seed)
    sha256 = backbone_fingerprint(named.backbone)
    # New layers and the training draw the same whatever the backbone has drawn: a random start compares with ours.
    torch.manual_seed(stream_seed("segmentation", job.seed))
    segmenter = LinearSegmenter(
        named.backbone, len(job.class_names), job.settings, mean=named.mean, std=named.std, title=job.model
    ).to(options.device)
    folder = RunFolder(out, task_settings(job.as_dict()), resume=options.resume)
    for note in job.notes:
        console.print(f"Note: {note}", soft_wrap=True)
    try:
        before = backbone_fingerprint(segmenter.maps)
        trainer = Trainer(_task(job, segmenter, options, sha256), folder)
        resume = options.resume and folder.checkpoint.is_file()
        done = trainer.train(resume=resume, max_steps=options.max_steps)
        if backbone_fingerprint(segmenter.maps) != before:
            raise RuntimeError("training changed the frozen backbone")  # a bug of ours, not of the user's
        facts = {
            "model": job.model,
            "pretrained": job.pretrained,
            "network": named.network,
            "backbone_sha256": sha256,
            "strides": list(segmenter.maps.strides),
            "started": folder.read_json("run.json").get("started", started),
            **_training_facts(job, done, options),
        }
        if done.step == job.settings.steps:
            facts["figures"] = _finish(job, segmenter, folder, named.network, options)
        folder.write_json("run.json", {**facts, "ended": now()})
        _write_report(folder)
        console.print(f"Head and report are in {folder.path}", soft_wrap=True)
        return folder.read_json("run.json")
    finally:
        folder.close()


def _training_facts(job: SegmentationJob, done: Position, options: RunOptions) -> dict[str, Any]:
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
        "notes": list(job.notes),
        "data": {"train": _data_facts(job.train), "test": _data_facts(job.test)},
        "look": {"train": dict(job.train.look), "test": dict(job.test.look)},
        "versions": versions(),
        "hardware": hardware(),
    }


def _task(job: SegmentationJob, segmenter: LinearSegmenter, options: RunOptions, sha256: str) -> DenseTask:
    settings = job.settings
    images = CroppedImages(job.train, settings, job.seed)
    plan = TaskPlan(
        "segmentation head",
        job.train.name,
        len(images),
        job.train.fingerprint() + job.test.fingerprint() + sha256,
        settings.steps,
        settings.batch_size,
        settings.lr,
        lambda step: 0.5 * (1 + math.cos(math.pi * step / settings.steps)),
        settings.checkpoint_every,
        job.seed,
    )
    optimizer = torch.optim.AdamW(segmenter.head.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)

    def losses(batch: Batch) -> dict[str, Tensor]:
        return {"loss_pixels": pixel_loss(segmenter, batch, options.device)}

    return DenseTask(
        segmenter,
        segmenter.head,
        optimizer,
        plan,
        device=options.device,
        loader=lambda first, last: train_loader(images, first, last, options.workers),
        named_losses=losses,
    )


def pixel_loss(segmenter: LinearSegmenter, batch: Batch, device: torch.device | str) -> Tensor:
    """Cross-entropy, a mean over the pixels that are not ignored; 0 where all are."""
    masks = torch.stack(batch[1]).to(device)
    scores = segmenter(torch.stack(batch[0]).to(device))
    scores = F.interpolate(scores, size=masks.shape[-2:], mode="bilinear", align_corners=False)
    total = F.cross_entropy(scores, masks, ignore_index=IGNORED, reduction="sum")
    return total / (masks != IGNORED).sum().clamp(min=1)


def _finish(
    job: SegmentationJob, segmenter: LinearSegmenter, folder: RunFolder, network: str, options: RunOptions
) -> dict[str, Any]:
    state, size = segmenter.head.state_dict(), job.settings.image_size
    write_atomically(folder.path / HEAD, lambda partial: save_tensors(state, partial, network))
    with StepProgress("measuring", len(job.test)) as progress:
        figures = measure_segmenter(
            segmenter, job.test, image_size=size, device=options.device, progress=progress.update
        )
    log_once(folder, job.settings.steps, {"miou": figures["miou"]})
    draw_masks(segmenter, job.test, size, folder.figures / "masks.png", f"{job.model} on {job.test.name}")
    return figures


def _data_facts(masked: MaskedSet) -> dict[str, Any]:
    return {"name": masked.name, "images": len(masked), "fingerprint": masked.fingerprint()}


def _write_report(folder: RunFolder) -> None:
    facts, metrics = folder.read_json("run.json"), read_metrics(folder.path)
    lines = [f"# Linear segmentation on {facts['model']}", "", f"`{facts['command']}`", ""]
    start = "its weights" if facts["pretrained"] else "random weights"
    lines.append(f"- backbone: {facts['network']} from {start}, frozen, maps of stride {facts['strides']}")
    for split, data in facts["data"].items():
        lines.append(f"- {split}: {data['name']}, {data['images']} images")
        lines += look_lines(facts, split)
    lines.append(
        f"- training: preset {facts['preset']}, {facts['steps']} of {facts['total_steps']} steps, "
        f"{duration(facts['training_seconds'])}, seed {facts['seed']}"
    )
    lines += [f"- {note}" for note in facts["notes"]]
    if figures := facts.get("figures"):
        lines += ["", f"**mIoU {figures['miou']:.2f} %**, pixel accuracy {figures['pixel_accuracy']:.2f} %", ""]
        lines += ["| class | IoU, % |", "|---|---:|"]
        lines += [f"| {n} | {'–' if v is None else f'{v:.2f}'} |" for n, v in figures["iou_per_class"].items()]
        lines += ["", "![masks](figures/masks.png)"]
    if metrics:
        plot_curves(curve_rows(metrics), folder.figures / "curves.png", f"{facts['model']}: segmentation head")
        lines += ["", "![curves](figures/curves.png)"]
    folder.write_text("report.md", "\n".join(lines) + "\n")
