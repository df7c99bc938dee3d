"""A trained detector from its run folder, for new photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from disco_zoo.models.encoder import frozen
from disco_zoo.networks.input_size import create_for_any_size
from disco_zoo.tasks.dense_run import finished_run, load_weights
from disco_zoo.tasks.detection.annotations import AnnotatedImage, AnnotatedSet, sized
from disco_zoo.tasks.detection.average_precision import compact
from disco_zoo.tasks.detection.batches import read_image
from disco_zoo.tasks.detection.network import build_detector
from disco_zoo.tasks.detection.report import MIN_SCORE, draw_sheet
from disco_zoo.tasks.detection.run import DETECTOR
from disco_zoo.tasks.detection.settings import DetectionSettings


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
    """

    network: Any
    class_names: tuple[str, ...]

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
        shown = _photos(photos, self.class_names)
        found = [compact(self._look(image)) for image in shown.images]
        draw_sheet(shown, found, path, f"found with a score of {min_score:g} or more", min_score=min_score)

    def _look(self, image: AnnotatedImage) -> dict[str, Tensor]:
        device = next(self.network.parameters()).device
        with frozen(self.network, device):
            (output,) = self.network([read_image(image, 0).to(device) / 255.0])
        return {key: value.cpu() for key, value in output.items()}


def _photos(paths: Sequence[str | Path], names: tuple[str, ...] = ()) -> AnnotatedSet:
    return sized(AnnotatedSet("nobody", names, tuple(AnnotatedImage(Path(p).expanduser(), 0, 0, ()) for p in paths)))


def load_detector(folder: str | Path, device: torch.device | str = "cpu") -> Detector:
    """Load what `disco-zoo detect` trained.

    Raises:
        BadRunFolder: the folder holds no trained detector.
        BadCheckpoint: the weights are damaged.
    """
    folder = Path(folder).expanduser()
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
    return Detector(network.eval().to(device), tuple(facts["class_names"]))
