"""A trained segmentation head from its run folder, on its backbone, for new photos."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from disco_zoo.errors import BadRunFolder
from disco_zoo.models.encoder import backbone_fingerprint, frozen
from disco_zoo.models.load import load_model
from disco_zoo.tasks.dense_run import finished_run, load_weights
from disco_zoo.tasks.segmentation.data import whole_rgb
from disco_zoo.tasks.segmentation.head import LinearSegmenter
from disco_zoo.tasks.segmentation.measure import predict
from disco_zoo.tasks.segmentation.run import HEAD
from disco_zoo.tasks.segmentation.settings import SegmentationSettings


@dataclass(frozen=True)
class Segmenter:
    """A trained head on its backbone.

    Attributes:
        class_names: by class number.
        image_size: shorter side in pixels at which it looks at photos.
    """

    network: LinearSegmenter
    class_names: tuple[str, ...]
    image_size: int

    def predict(self, photo: str | Path) -> Tensor:
        """Class numbers int64 (H, W) of a photo in its own size, turned as people see it.

        Raises:
            BadData: no such file, or no whole image.
        """
        image = whole_rgb(Path(photo).expanduser())
        with frozen(self.network, self.network.device):
            return predict(self.network, image, self.image_size)


def load_segmenter(folder: str | Path, device: torch.device | str = "cpu") -> Segmenter:
    """Load what `disco-zoo segment` trained. The folder has the head alone; its model is loaded by name.

    Raises:
        BadRunFolder: the folder holds no trained head, or the model has other weights now.
        BadCheckpoint: the head is damaged.
    """
    folder = Path(folder).expanduser()
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
    return Segmenter(network.eval().to(device), tuple(facts["class_names"]), wanted.image_size)
