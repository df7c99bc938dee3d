"""A linear segmentation head from backbone to figures, as a job of `run_dense`, and loaded for new photos."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from disco_zoo.core.checkpoint import save_tensors, write_atomically
from disco_zoo.core.claimed_dir import FACTS
from disco_zoo.core.console import StepProgress
from disco_zoo.core.files import user_path
from disco_zoo.data.pixels.bit_depth import ALONE, ValueRanges
from disco_zoo.errors import BadRunFolder
from disco_zoo.models.encoder import backbone_fingerprint, frozen
from disco_zoo.models.load import NamedModel, load_model
from disco_zoo.tasks.dense_report import curve_lines, fact_lines
from disco_zoo.tasks.dense_run import DenseJob, finished_run, load_weights
from disco_zoo.tasks.dense_task import Batch, DenseTask, log_once
from disco_zoo.tasks.detection.batches import train_loader
from disco_zoo.tasks.segmentation.batches import CroppedImages
from disco_zoo.tasks.segmentation.data import IGNORED, MaskedSet, whole_rgb
from disco_zoo.tasks.segmentation.head import LinearSegmenter
from disco_zoo.tasks.segmentation.measure import draw_masks, measure_segmenter, predict
from disco_zoo.tasks.segmentation.settings import SegmentationSettings
from disco_zoo.training.run import RunOptions
from disco_zoo.training.run_folder import RunFolder
from disco_zoo.training.task import Position, RunLog

HEAD = "head.safetensors"


@dataclass(frozen=True, kw_only=True)
class SegmentationJob(DenseJob):
    """A head; `train` and `test` come from `check_masks`; `notes` go into the report."""

    kind: ClassVar[str] = "segmentation"
    product: ClassVar[str] = "Head"

    train: MaskedSet
    test: MaskedSet
    settings: SegmentationSettings
    notes: tuple[str, ...] = ()

    def report_notes(self) -> tuple[str, ...]:
        return self.notes

    def build(self, named: NamedModel) -> LinearSegmenter:
        classes = len(self.class_names)
        return LinearSegmenter(named.backbone, classes, self.settings, mean=named.mean, std=named.std, title=self.model)

    def task(self, network: LinearSegmenter, options: RunOptions, backbone_sha256: str) -> DenseTask:
        settings = self.settings
        images = CroppedImages(self.train, settings, self.seed)
        plan = self.plan(
            "segmentation head",
            len(images),
            backbone_sha256,
            lambda step: 0.5 * (1 + math.cos(math.pi * step / settings.steps)),
        )
        return _HeadTask(
            network,
            network.head,
            torch.optim.AdamW(network.head.parameters(), lr=settings.lr, weight_decay=settings.weight_decay),
            plan,
            device=options.device,
            loader=lambda first, last: train_loader(images, settings.batch_size, first, last, options.workers),
            named_losses=lambda batch: {"loss_pixels": pixel_loss(network, batch, options.device)},
        )

    def facts(self, network: LinearSegmenter, named: NamedModel, done: Position) -> dict[str, Any]:
        return {"strides": list(network.maps.strides), "notes": list(self.notes)}

    def finish(self, network: LinearSegmenter, folder: RunFolder, name: str, options: RunOptions) -> dict[str, Any]:
        """Save and measure the head; draw what it predicts."""
        state, size = network.head.state_dict(), self.settings.image_size
        write_atomically(folder.path / HEAD, lambda partial: save_tensors(state, partial, name))
        with StepProgress("measuring", len(self.test)) as progress:
            figures = measure_segmenter(
                network, self.test, image_size=size, device=options.device, progress=progress.update
            )
        log_once(folder, self.settings.steps, {"miou": figures["miou"]})
        draw_masks(network, self.test, size, folder.figures / "masks.png", f"{self.model} on {self.test.name}")
        return {"figures": figures}

    def write_report(self, folder: RunFolder) -> None:
        _write_report(folder)


class _HeadTask(DenseTask):
    """Proves that the frozen backbone did not change."""

    model: LinearSegmenter

    def start(self, log: RunLog, last_step: int) -> None:
        super().start(log, last_step)
        self._before = backbone_fingerprint(self.model.maps)

    def finish(self) -> None:
        if backbone_fingerprint(self.model.maps) != self._before:
            raise RuntimeError("training changed the frozen backbone")  # a bug of ours, not of the user's


def pixel_loss(segmenter: LinearSegmenter, batch: Batch, device: torch.device | str) -> Tensor:
    """Cross-entropy, a mean over the pixels that are not ignored; 0 where all are."""
    masks = torch.stack(batch[1]).to(device)
    scores = segmenter(torch.stack(batch[0]).to(device))
    scores = F.interpolate(scores, size=masks.shape[-2:], mode="bilinear", align_corners=False)
    total = F.cross_entropy(scores, masks, ignore_index=IGNORED, reduction="sum")
    return total / (masks != IGNORED).sum().clamp(min=1)


def _write_report(folder: RunFolder) -> None:
    facts = folder.read_json(FACTS)
    lines = fact_lines("Linear segmentation", facts, f"frozen, maps of stride {facts['strides']}")
    lines += [f"- {note}" for note in facts["notes"]]
    if figures := facts.get("figures"):
        lines += ["", f"**mIoU {figures['miou']:.2f} %**, pixel accuracy {figures['pixel_accuracy']:.2f} %", ""]
        lines += ["| class | IoU, % |", "|---|---:|"]
        lines += [f"| {n} | {'–' if v is None else f'{v:.2f}'} |" for n, v in figures["iou_per_class"].items()]
        lines += ["", "![masks](figures/masks.png)"]
    lines += curve_lines(folder, f"{facts['model']}: segmentation head")
    folder.write_text("report.md", "\n".join(lines) + "\n")


@dataclass(frozen=True)
class Segmenter:
    """A trained head on its backbone.

    Attributes:
        class_names: by class number.
        image_size: shorter side in pixels at which it looks at photos.
        ranges: what is white in photos of more than 8 bits: what it was in training.
    """

    network: LinearSegmenter
    class_names: tuple[str, ...]
    image_size: int
    ranges: ValueRanges = ALONE

    def predict(self, photo: str | Path) -> Tensor:
        """Class numbers int64 (H, W) of a photo in its own size, turned as people see it.

        Raises:
            BadData: no such file, or no whole image.
        """
        image = whole_rgb(user_path(photo), ranges=self.ranges)
        with frozen(self.network, self.network.device):
            return predict(self.network, image, self.image_size)


def load_segmenter(folder: str | Path, device: torch.device | str = "cpu") -> Segmenter:
    """Load what `disco-zoo segment` trained. The folder has the head alone; its model is loaded by name.

    Raises:
        BadRunFolder: the folder holds no trained head, or the model has other weights now.
        BadCheckpoint: the head is damaged.
    """
    folder = user_path(folder)
    facts, _, wanted = finished_run(folder, HEAD, SegmentationSettings, "head", "segment")
    with torch.random.fork_rng(devices=[]):
        # Random weights are those of the run, too.
        named = load_model(facts["model"], pretrained=facts["pretrained"], seed=facts["seed"])
        if backbone_fingerprint(named.backbone) != facts["backbone_sha256"]:
            raise BadRunFolder(f"{folder} holds a head for other weights than {facts['model']} has now.")
        network = LinearSegmenter(
            named.backbone, len(facts["class_names"]), wanted, mean=named.mean, std=named.std, title=facts["model"]
        )
    load_weights(network.head, folder / HEAD)
    ranges = ValueRanges(facts.get("white", {}))
    return Segmenter(network.eval().to(device), tuple(facts["class_names"]), wanted.image_size, ranges)
