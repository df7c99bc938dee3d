"""The network to export, its input and metadata, and the comparison of a file's outputs with PyTorch's."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from disco_zoo.core.environment import package_version
from disco_zoo.core.files import user_path
from disco_zoo.core.random_streams import stream_generator
from disco_zoo.errors import CannotExport, first_line
from disco_zoo.evaluation.subject import fit_to
from disco_zoo.models.classifier_dir import find_classifier_folder, read_classifier
from disco_zoo.models.encoder import backbone_fingerprint
from disco_zoo.models.load import NamedModel, load_model
from disco_zoo.models.onnx_network import INPUT
from disco_zoo.transforms.eval import eval_resize_size, normalize

FEATURES, SCORES = "features", "scores"


class FromPixels(nn.Module):
    """A network behind its normalisation: uint8 RGB (B, 3, S, S) to what it gives of normalised images."""

    mean: Tensor
    std: Tensor

    def __init__(self, named: NamedModel) -> None:
        super().__init__()
        self.backbone = named.backbone
        self.register_buffer("mean", torch.tensor(named.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(named.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = self.backbone((images.to(torch.float32) / 255 - self.mean) / self.std)
        return output


@dataclass(frozen=True)
class Subject:
    """A network to be exported, in eval mode.

    Attributes:
        named: the model; of a classifier, its backbone has the head.
        network: `named.backbone`, or it behind its normalisation.
        image_size: side of the input in pixels, fixed in the file; the batch is free.
        takes_pixels: whether the input is uint8 RGB instead of normalised float32.
        label_names: of a classifier, in the order of its scores; None where the file gives features.
    """

    named: NamedModel
    network: nn.Module
    image_size: int
    takes_pixels: bool
    label_names: tuple[str, ...] | None = None

    @property
    def output(self) -> str:
        """The name of the file's output."""
        return FEATURES if self.label_names is None else SCORES

    @property
    def resize_size(self) -> int:
        own = self.named.resize_size if self.image_size == self.named.image_size else None
        return own or eval_resize_size(self.image_size)

    def example(self, batch: int, seed: int = 0) -> Tensor:
        """Random pictures (batch, 3, S, S) as the network takes them, the same for the same numbers."""
        shape = (batch, 3, self.image_size, self.image_size)
        generator = stream_generator("export_example", seed, batch)
        pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        if self.takes_pixels:
            return pixels
        return normalize(pixels, self.named.mean, self.named.std).contiguous()

    def facts(self) -> dict[str, Any]:
        """Metadata for the file: whose features or scores it gives, and how to preprocess an image."""
        takes = "uint8 RGB" if self.takes_pixels else "float32 RGB / 255, minus mean, divided by std"
        names = self.label_names
        gives = f"{FEATURES} (batch, {self.named.feature_dim})"
        if names is not None:
            gives = f"{SCORES} (batch, {len(names)}), before softmax, in the order of label_names"
        return {
            "model": self.named.name,
            "network": self.named.network,
            "weights_sha256": backbone_fingerprint(self.named.backbone),
            "input": f"{INPUT} (batch, 3, {self.image_size}, {self.image_size}), {takes}",
            "output": gives,
            **({} if names is None else {"label_names": list(names)}),
            "image_size": self.image_size,
            "resize_size": self.resize_size,
            "interpolation": "bilinear, antialiased; then a centre crop",
            "mean": list(self.named.mean),
            "std": list(self.named.std),
            "normalised_inside": self.takes_pixels,
            "made_by": f"disco-zoo {package_version()}",
        }

    def facts_as_text(self) -> dict[str, str]:
        """The same as strings, for formats that hold nothing else."""
        return {key: value if isinstance(value, str) else json.dumps(value) for key, value in self.facts().items()}


def load_subject(
    model: str, *, features: bool = False, image_size: int | None = None, normalise_inside: bool = False
) -> Subject:
    """Load what `load_model` knows; of a fine-tuned classifier its head as well.

    Args:
        features: leave the head of a classifier away.

    Raises:
        UnknownName, WeightsError, BadCheckpoint: the model cannot be had.
        DiscoZooError: it cannot look at this size.
    """
    folder = None if features else find_classifier_folder(user_path(model))
    if folder is None:
        named, label_names = load_model(model), None
    else:
        found = read_classifier(folder)
        network: Any = found.network
        architecture = str(network.pretrained_cfg["architecture"])
        sizes = found.image_size, found.resize_size
        named, label_names = NamedModel(model, architecture, network, found.mean, found.std, *sizes), found.label_names
    fit_to(named.backbone, image_size or named.image_size, model)
    return subject_of(named, image_size=image_size, normalise_inside=normalise_inside, label_names=label_names)


def subject_of(
    named: NamedModel,
    *,
    image_size: int | None = None,
    normalise_inside: bool = False,
    label_names: tuple[str, ...] | None = None,
) -> Subject:
    """Prepare a model for export, on the CPU.

    Args:
        image_size: pixels; None for the model's own.
        normalise_inside: let the file take uint8 pixels.
        label_names: of a classifier.
    """
    named.backbone.cpu().eval().requires_grad_(False)
    network = FromPixels(named).eval() if normalise_inside else named.backbone
    return Subject(named, network, image_size or named.image_size, normalise_inside, label_names)


Runner = Callable[[Tensor], Tensor]
BATCH_SIZES = (1, 2, 5)
# Largest difference, in shares of the largest number. The zoo's students differ by less than 2e-6 in ONNX Runtime.
TOLERANCE = 1e-4


def largest_difference(subject: Subject, run: Runner) -> float:
    """The largest |theirs - ours| over `BATCH_SIZES`, as a share of the largest |ours|.

    Raises:
        CannotExport: shapes differ, something is not finite, or the other cannot run such a batch.
    """
    worst = 0.0
    for batch in BATCH_SIZES:
        images = subject.example(batch, seed=1)
        with torch.no_grad():
            ours = _called(subject, subject.network, images, "PyTorch")
        theirs = _called(subject, run, images, "the file")
        if theirs.shape != ours.shape:
            raise CannotExport(f"the file gives {tuple(theirs.shape)} where PyTorch gives {tuple(ours.shape)}")
        if not torch.isfinite(ours).all():
            raise CannotExport(f"{subject.named.name} gives values that are not finite: its weights are damaged")
        difference = (theirs.float() - ours).abs().max() / ours.abs().max().clamp_min(1e-12)
        worst = max(worst, difference.item() if torch.isfinite(difference) else float("inf"))
    return worst


def _called(subject: Subject, run: Runner, images: Tensor, who: str) -> Tensor:
    try:
        return run(images)
    except Exception as error:  # each runtime has its own
        raise CannotExport(
            f"{subject.named.name}: {who} cannot run a batch of {len(images)}: {first_line(error)}"
        ) from error


def require_same(subject: Subject, run: Runner, tolerance: float, kind: str) -> float:
    """The largest difference, refused above `tolerance`.

    Raises:
        CannotExport: the file computes something else.
    """
    found = largest_difference(subject, run)
    if not found <= tolerance:
        raise CannotExport(
            f"the {kind} file of {subject.named.name} differs from PyTorch by {found:.1e} of the largest number, "
            f"more than {tolerance:.0e}: nothing was written. Try another --format, or allow it with --tolerance"
        )
    return found
