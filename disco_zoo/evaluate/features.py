"""Frozen features of a data source, and the proof that a backbone stayed frozen.

EVAL of `methods.md` 1.2 has its one definition here: resize the shorter side (bilinear, antialiased), centre
crop, normalise. Extraction leaves no trace: module modes, device and random state are as before, so that an
online kNN in the middle of training does not change the training.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from disco_zoo.datasets import UnreadableTally
from disco_zoo.errors import BadData, DiscoZooError, UnreadableImage
from disco_zoo.interrupts import leave_interrupts_to_parent

Interpolation = Literal["bilinear", "bicubic"]
Progress = Callable[[int, int], None]
"""Called with (images done, images in total)."""

UNREADABLE_SHARE = 0.01  # of the images; with more of them missing a figure is worth little
UNREADABLE_FLOOR = 10


class LabelledImages(Protocol):
    """What evaluation needs of a data source."""

    name: str
    class_names: list[str] | None

    @property
    def labels(self) -> Sequence[int] | None: ...

    def __len__(self) -> int: ...

    def image(self, index: int) -> Image.Image: ...


@dataclass(frozen=True)
class Features:
    """Backbone features of N images.

    Attributes:
        features: float32 (N, D) on the CPU, as the backbone gives them (not normalised).
        labels: int64 (N,), or None for a source without labels.
        unreadable: one message for each image that could not be read and is therefore not among the N.
    """

    features: Tensor
    labels: Tensor | None
    unreadable: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.features)


def eval_resize_size(image_size: int) -> int:
    """Shorter side before the centre crop, in pixels: the papers' 256 for 224, and in proportion."""
    return round(image_size * 256 / 224)


def eval_transform(
    image_size: int, resize_size: int | None = None, interpolation: Interpolation = "bilinear"
) -> Callable[[Image.Image], Tensor]:
    """EVAL without its normalisation: PIL image to uint8 (3, image_size, image_size).

    Args:
        image_size: side of the centre crop in pixels.
        resize_size: shorter side before the crop in pixels; default `eval_resize_size(image_size)`.
        interpolation: "bicubic" is for protocols that say so.

    Raises:
        ValueError: the crop would be larger than the resized image, that is, padded with black.
    """
    resize_size = eval_resize_size(image_size) if resize_size is None else resize_size
    if resize_size < image_size:
        raise ValueError(f"resize_size {resize_size} is smaller than the crop of {image_size} pixels.")
    return v2.Compose(
        [
            v2.Resize(resize_size, interpolation=v2.InterpolationMode(interpolation), antialias=True),
            v2.CenterCrop(image_size),
            v2.PILToTensor(),
        ]
    )


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Map uint8 (B, 3, H, W) to float32 `(images/255 - mean) / std`; channels last on the CPU.

    Channels last makes the convolutions of small backbones 1.2 to 2.4 times faster on a CPU.
    """
    layout = torch.channels_last if images.device.type == "cpu" else torch.preserve_format
    images = images.to(torch.float32, memory_format=layout) / 255.0
    shift = torch.tensor(mean, dtype=torch.float32, device=images.device).view(1, 3, 1, 1)
    scale = torch.tensor(std, dtype=torch.float32, device=images.device).view(1, 3, 1, 1)
    return images.sub_(shift).div_(scale)


@contextlib.contextmanager
def frozen(backbone: nn.Module, device: torch.device | str) -> Iterator[None]:
    """Put the backbone on `device` in eval mode without gradients; restore each module's mode and the device.

    Each module has its own mode on purpose: a frozen BatchNorm may be in eval inside a model in train mode.
    """
    modes = [(module, module.training) for module in backbone.modules()]
    former_device = next((parameter.device for parameter in backbone.parameters()), torch.device(device))
    try:
        backbone.to(device).eval()
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
        backbone.to(former_device)


def backbone_fingerprint(module: nn.Module) -> str:
    """Sha256 over name, type, shape and bytes of every parameter and buffer, BatchNorm statistics included.

    Equal fingerprints before and after a probe prove that the probe did not change the backbone.
    """
    digest = hashlib.sha256()
    named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    for name, tensor in sorted(named, key=lambda item: item[0]):
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


_Item = tuple[Tensor | None, int, str]


class _EvalImages(Dataset[_Item]):
    """Item i: (uint8 (3, S, S), index, "") or, for an image that cannot be read, (None, index, message)."""

    def __init__(
        self, source: LabelledImages, indices: Sequence[int], transform: Callable[[Image.Image], Tensor]
    ) -> None:
        self.source, self.indices, self.transform = source, indices, transform

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> _Item:
        index = self.indices[position]
        try:
            return self.transform(self.source.image(index)), index, ""
        except UnreadableImage as error:
            return None, index, str(error)


def _collate(items: list[_Item]) -> tuple[Tensor | None, list[int], dict[int, str]]:
    """Stack what could be read: (uint8 (B, 3, S, S) or None, its indices, the messages of the others)."""
    images = [image for image, _, _ in items if image is not None]
    indices = [index for image, index, _ in items if image is not None]
    messages = {index: message for image, index, message in items if image is None}
    return torch.stack(images) if images else None, indices, messages


def extract_features(
    backbone: nn.Module,
    source: LabelledImages,
    *,
    image_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    resize_size: int | None = None,
    interpolation: Interpolation = "bilinear",
    batch_size: int = 128,
    device: torch.device | str = "cpu",
    workers: int = 0,
    indices: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> Features:
    """Run the frozen backbone over a source under EVAL.

    Args:
        backbone: maps normalised float32 (B, 3, S, S) to features (B, D).
        source: the images, and their labels when it has them.
        image_size, resize_size, interpolation: see `eval_transform`.
        mean, std: of the backbone, for RGB in 0..1.
        device: where the backbone runs; it returns to its own device afterwards.
        workers: processes that read images; 0 reads in this process.
        indices: which images, in which order; all by default.
        progress: called after each batch with (images done, images in total).

    Raises:
        BadData: no image, or too many that cannot be read.
        DiscoZooError: the output is not (B, D), or not finite.
    """
    chosen = range(len(source)) if indices is None else list(indices)
    if len(chosen) == 0:
        raise BadData(f"{source.name} has no images to evaluate. Give another --data.")
    loader = DataLoader(
        _EvalImages(source, chosen, eval_transform(image_size, resize_size, interpolation)),
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=leave_interrupts_to_parent,
        # Without one of its own the loader draws its workers' seed from the global generator.
        generator=torch.Generator().manual_seed(0),
    )
    rows: Tensor | None = None  # filled in place: joining batches at the end would take the memory twice
    kept: list[int] = []
    tally = UnreadableTally(unreadable_limit(len(chosen)))
    with frozen(backbone, device):
        for images, image_indices, messages in loader:
            for index, message in messages.items():
                tally.add(index, message)
            tally.check()
            if images is not None:
                features = pooled(backbone, normalise(images.to(device), mean, std)).cpu()
                rows = torch.empty(len(chosen), features.shape[1]) if rows is None else rows
                rows[len(kept) : len(kept) + len(features)] = features
                kept += image_indices
            if progress is not None:
                progress(len(kept) + len(tally.messages), len(chosen))
    if rows is None:
        first = next(iter(tally.messages.values()))
        raise BadData(f"None of the {len(chosen)} images of {source.name} can be read. First: {first}")
    labels = None if source.labels is None else torch.tensor([source.labels[i] for i in kept], dtype=torch.int64)
    return Features(rows[: len(kept)], labels, tuple(tally.messages.values()))


def pooled(backbone: nn.Module, images: Tensor) -> Tensor:
    """Features float32 (B, D) of normalised images (B, 3, S, S), checked.

    Raises:
        DiscoZooError: the output is not (B, D), or not finite.
    """
    features = backbone(images)
    if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(images):
        shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise DiscoZooError(f"The backbone gives {shape}, not one vector an image. Create it with num_classes=0.")
    if not torch.isfinite(features).all():
        raise DiscoZooError("The backbone's features are not finite: its weights are damaged or have diverged.")
    return features.float()


def unreadable_limit(num_images: int) -> int:
    """How many of `num_images` may be unreadable before an evaluation stops."""
    return max(UNREADABLE_FLOOR, round(UNREADABLE_SHARE * num_images))
