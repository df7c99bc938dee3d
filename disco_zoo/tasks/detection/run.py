"""One detector from backbone to figures, as a job of `run_dense`, and loaded for new photos."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from disco_zoo.core.checkpoint import save_tensors, write_atomically
from disco_zoo.core.console import StepProgress
from disco_zoo.core.files import sha256_of, user_path
from disco_zoo.data.pixels.bit_depth import ALONE, ValueRanges
from disco_zoo.errors import BadData, require, shown
from disco_zoo.models.encoder import frozen
from disco_zoo.models.load import NamedModel
from disco_zoo.networks.input_size import create_for_any_size
from disco_zoo.tasks.dense_run import DenseJob, finished_run, load_weights
from disco_zoo.tasks.dense_task import DenseTask, log_once
from disco_zoo.tasks.detection.annotations import EXTRA, AnnotatedImage, AnnotatedSet, has_outline, sized
from disco_zoo.tasks.detection.average_precision import average_precision, compact, detect
from disco_zoo.tasks.detection.batches import TrainImages, read_image, train_loader
from disco_zoo.tasks.detection.network import build_detector
from disco_zoo.tasks.detection.report import LEGEND, MIN_SCORE, draw_sheet, write_report
from disco_zoo.tasks.detection.settings import DetectionSettings, lr_factor, size_notes
from disco_zoo.tasks.detection.task import detector_losses, detector_optimizer, set_precise_statistics
from disco_zoo.training.run import RunOptions
from disco_zoo.training.run_folder import RunFolder
from disco_zoo.training.task import Position

CURVE = ("box_ap", "box_ap50", "mask_ap", "mask_ap50")
DETECTOR = "detector.safetensors"


@dataclass(frozen=True, kw_only=True)
class DetectionJob(DenseJob):
    """A detector; with `masks` it finds outlines, too; with `freeze` the backbone does not learn."""

    kind: ClassVar[str] = "detection"
    product: ClassVar[str] = "Detector"

    train: AnnotatedSet
    test: AnnotatedSet
    settings: DetectionSettings
    masks: bool
    freeze: bool

    def as_dict(self, **own: Any) -> dict[str, Any]:
        return super().as_dict(masks=self.masks, freeze=self.freeze, **own)

    def report_notes(self) -> list[str]:
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

    def build(self, named: NamedModel) -> nn.Module:
        detector: nn.Module = build_detector(
            named.backbone,
            len(self.class_names),
            self.settings,
            mean=named.mean,
            std=named.std,
            masks=self.masks,
            freeze=self.freeze,
            title=self.model,
        )
        return detector

    def task(self, network: Any, options: RunOptions, backbone_sha256: str) -> DenseTask:
        settings, images = self.settings, self._images()
        plan = self.plan(
            "detector",
            len(images),
            backbone_sha256,
            functools.partial(lr_factor, settings=settings),
            eval_every=settings.eval_every,
            clip_norm=settings.clip_norm,
        )
        return DenseTask(
            network,
            network,
            detector_optimizer(network, settings),
            plan,
            device=options.device,
            loader=lambda first, last: train_loader(images, settings.batch_size, first, last, options.workers),
            named_losses=lambda batch: detector_losses(network, batch, options.device, settings.precision),
            measure=lambda: _curve_figures(self._measured(network, options)[0]),
        )

    def _images(self) -> TrainImages:
        return TrainImages(self.train, self.seed, self.masks)

    def _set_precise_statistics(self, network: Any, options: RunOptions) -> None:
        """By the batches that would come after the training, where the settings say so."""
        settings, first = self.settings, self.settings.steps
        if number := settings.precise_bn_batches:
            batches = train_loader(self._images(), settings.batch_size, first, first + number, options.workers)
            set_precise_statistics(
                network, batches, lambda batch: detector_losses(network, batch, options.device, settings.precision)
            )

    def _measured(
        self, network: Any, options: RunOptions, progress: Callable[[int, int], None] | None = None
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Average precisions in percent, and the detections they came from."""
        found = detect(
            network,
            self.test,
            device=options.device,
            workers=options.workers,
            precision=self.settings.precision,
            progress=progress,
        )
        return average_precision(self.test, found, masks=self.masks, points=self.settings.ap_points), found

    def facts(self, network: Any, named: NamedModel, done: Position) -> dict[str, Any]:
        return {
            "mean": list(named.mean),
            "std": list(named.std),
            "ap_points": self.settings.ap_points,
            "images_per_s": round(done.images_per_s(self.settings.batch_size), 2),
            "parameters": sum(p.numel() for p in network.parameters()),
        }

    def data_facts(self, source: AnnotatedSet) -> dict[str, Any]:
        boxes = sum(source.boxes_by_class().values())
        return {**super().data_facts(source), "boxes": boxes, "notes": list(source.notes)}

    def finish(self, network: Any, folder: RunFolder, name: str, options: RunOptions) -> dict[str, Any]:
        """Save and measure the detector; draw what it finds."""
        self._set_precise_statistics(network, options)
        path = folder.path / DETECTOR
        write_atomically(path, lambda partial: save_tensors(network.state_dict(), partial, name))
        with StepProgress("measuring", len(self.test)) as progress:
            figures, detections = self._measured(network, options, progress.update)
        log_once(folder, self.settings.steps, _curve_figures(figures))
        heading = f"{self.model} on {self.test.name}\n{LEGEND}"
        draw_sheet(self.test, detections, folder.figures / "detections.png", heading)
        return {"detector": {"file": DETECTOR, "sha256": sha256_of(path)}, "figures": figures}

    def write_report(self, folder: RunFolder) -> None:
        write_report(folder, self.report_notes())


def _curve_figures(figures: dict[str, Any]) -> dict[str, float]:
    return {key: figures[key] for key in CURVE if figures.get(key) is not None}


@dataclass(frozen=True)
class FoundObject:
    """One object in a photo.

    Attributes:
        name: of its class.
        score: 0 to 1.
        box: x1, y1, x2, y2 in pixels of the photo.
        mask: where it is, bool (H, W), of a detector that was trained with masks.
    """

    name: str
    score: float
    box: tuple[float, float, float, float]
    mask: Tensor | None = None


@dataclass(frozen=True)
class Detector:
    """A trained detector.

    Attributes:
        network: torchvision's, in eval mode: a list of float images (3, H, W) in 0..1 to boxes, scores and labels,
            label n being `class_names[n - 1]`.
        class_names: what it finds.
        ranges: what is white in photos of more than 8 bits: what it was in training.
    """

    network: Any
    class_names: tuple[str, ...]
    ranges: ValueRanges = ALONE

    def find(self, photo: str | Path, min_score: float = MIN_SCORE) -> list[FoundObject]:
        """Objects in a photo, the surest first.

        Raises:
            BadData: no such file, or no whole image.
        """
        output = self._look(_photos([photo]).images[0])
        masks = output.get("masks")
        return [
            FoundObject(self.class_names[label - 1], score, tuple(box), None if masks is None else masks[n, 0] > 0.5)
            for n, (box, score, label) in enumerate(
                zip(output["boxes"].tolist(), output["scores"].tolist(), output["labels"].tolist(), strict=True)
            )
            if score >= min_score
        ]

    def draw(self, photos: Sequence[str | Path], path: str | Path, min_score: float = MIN_SCORE) -> None:
        """Draw what is found into a sheet of up to twelve photos, a PNG or SVG.

        Raises:
            BadData: a photo is missing or no whole image.
        """
        shown = replace(_photos(photos, self.class_names), ranges=self.ranges)
        found = [compact(self._look(image)) for image in shown.images]
        draw_sheet(shown, found, path, f"found with a score of {min_score:g} or more", min_score=min_score)

    def _look(self, image: AnnotatedImage) -> dict[str, Tensor]:
        device = next(self.network.parameters()).device
        with frozen(self.network, device):
            (output,) = self.network([read_image(image, 0, self.ranges).to(device) / 255.0])
        return {key: value.cpu() for key, value in output.items()}


def _photos(paths: Sequence[str | Path], names: tuple[str, ...] = ()) -> AnnotatedSet:
    return sized(AnnotatedSet("nobody", names, tuple(AnnotatedImage(user_path(p), 0, 0, ()) for p in paths)))


def load_detector(folder: str | Path, device: torch.device | str = "cpu") -> Detector:
    """Load what `disco-zoo detect` trained.

    Raises:
        BadRunFolder: the folder holds no trained detector.
        BadCheckpoint: the weights are damaged.
    """
    folder = user_path(folder)
    facts, settings, own = finished_run(folder, DETECTOR, DetectionSettings, "detector", "detect")
    with torch.random.fork_rng(devices=[]):  # the first values are drawn, and then replaced
        network = build_detector(
            create_for_any_size(facts["network"], pretrained=False, num_classes=0),
            len(facts["class_names"]),
            own,
            mean=facts["mean"],
            std=facts["std"],
            masks=settings["masks"],
            title=facts["network"],
        )
    load_weights(network, folder / DETECTOR)
    return Detector(network.eval().to(device), tuple(facts["class_names"]), ValueRanges(facts.get("white", {})))
