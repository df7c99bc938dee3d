"""The teacher's features of a whole training set, computed once and kept in the run folder.

BINGO's bags and CompRess's cached teacher (`methods.md` 2.6, 2.7) both come from here: images under EVAL, the
network in eval mode, rows L2-normalised. What was computed from another teacher, other images or another transform
has another key and is never used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from disco_zoo.datasets import ImageSource, UnreadableTally
from disco_zoo.encoder import feature_dim_of
from disco_zoo.errors import BadData, BadRunFolder
from disco_zoo.evaluate.features import backbone_fingerprint, eval_resize_size, extract_features, unreadable_limit
from disco_zoo.first_process import Heartbeat, on_first_process
from disco_zoo.kept_array import keep_array, kept_path, open_kept_as
from disco_zoo.progress import StepProgress
from disco_zoo.teachers import Teacher

if TYPE_CHECKING:  # the methods import this file
    from disco_zoo.methods.base import Preparation

FeatureKind = Literal["backbone", "embedding"]

FOLDER = "teacher_features"
# Of unit rows half precision keeps about three decimals a number: cosines move by some 1e-5, and ImageNet's
# features of a ResNet-50 take 5 GB instead of 10.
ROW_TYPE = np.dtype("<f2")
IMAGES_A_PART = 16384  # features of so many images are in memory at once


@dataclass(frozen=True)
class FeatureBank:
    """Unit feature rows of every image of a source.

    Attributes:
        rows: float16 (N, D) on disk, L2-normalised; row i is of image i, zeros where that cannot be read.
        unreadable: what was wrong with those, by index.
        path: of the file.
        key: what the rows were computed from.
    """

    rows: np.ndarray
    unreadable: dict[int, str]
    path: Path
    key: dict[str, Any]

    @property
    def width(self) -> int:
        return int(self.rows.shape[1])

    def readable(self) -> np.ndarray:
        """Ascending int64 numbers of the images that have features."""
        return np.setdiff1d(np.arange(len(self.rows)), np.fromiter(self.unreadable, np.int64, len(self.unreadable)))

    def targets(self, index: Tensor) -> Tensor:
        """Rows float32 (b, D) of images `index` (b,), on the index's device.

        Raises:
            BadData: one of them could not be read when the features were computed.
        """
        numbers = index.tolist()
        for number in self.unreadable.keys() & set(numbers):
            raise BadData(
                f"no cached features: {self.unreadable[number]}. It can be read now: delete {self.path} and resume"
            )
        return torch.from_numpy(self.rows[numbers].astype(np.float32)).to(index.device)


def teacher_key(teacher: Teacher) -> str:
    """Sha256 of the teacher's file, or of its tensors where it has none."""
    return teacher.loaded.sha256 or backbone_fingerprint(teacher.encoder)


def bank_key(teacher: Teacher, source: ImageSource, kind: FeatureKind, resize_size: int | None) -> dict[str, Any]:
    """All that decides the rows, as plain values."""
    encoder = teacher.encoder
    return {
        "teacher": teacher_key(teacher),
        "features": "backbone" if teacher.headless else kind,  # without a head both kinds are the same
        "data": source.fingerprint(),
        "images": len(source),
        "image_size": encoder.image_size,
        "resize_size": resize_size or eval_resize_size(encoder.image_size),
        "mean": list(encoder.mean),
        "std": list(encoder.std),
        "row_type": ROW_TYPE.str,
    }


def teacher_bank(
    teacher: Teacher, preparation: Preparation, *, kind: FeatureKind, resize_size: int | None = None
) -> FeatureBank:
    """The bank of a run: the one in its folder where it fits, else computed by the first process.

    Args:
        teacher: in any mode; it is put into eval for this and back.
        kind: "backbone" for pooled features, "embedding" for what the teacher's head makes of them.
        resize_size: shorter side before the centre crop at the teacher's size; None for the papers' 256 to 224.

    Raises:
        BadData: too many images cannot be read.
        BadRunFolder: no room, or the processes do not share the folder.
    """
    source = preparation.source
    key = bank_key(teacher, source, kind, resize_size)
    path = kept_path(preparation.folder / FOLDER, key["features"], key)

    shape = (len(source), _width(teacher, key["features"]))

    def compute(beat: Heartbeat) -> None:
        former = open_kept_as(path, key)
        if former is None or former.array.shape != shape:
            keep_array(path, key, lambda partial: _write_bank(partial, teacher, preparation, key, beat))

    on_first_process(compute)
    kept = open_kept_as(path, key)
    if kept is None or kept.array.shape != shape:
        raise BadRunFolder(f"{path} is damaged, or not on a disk that all processes share. Delete it, or choose --out")
    unreadable = {int(index): message for index, message in kept.facts["unreadable"].items()}
    return FeatureBank(kept.array, unreadable, path, kept.key)


def _width(teacher: Teacher, features: FeatureKind) -> int:
    """Of the rows, without computing one."""
    return feature_dim_of(teacher.backbone) if features == "backbone" else teacher.embed_dim


def _write_bank(
    path: Path, teacher: Teacher, preparation: Preparation, key: dict[str, Any], beat: Heartbeat
) -> dict[str, Any]:
    """Write the rows part by part; return the facts."""
    encoder, source = teacher.encoder, preparation.source
    network = encoder.backbone if key["features"] == "backbone" else nn.Sequential(encoder.backbone, encoder.head)
    tally = UnreadableTally(unreadable_limit(len(source)))
    with path.open("wb") as file, StepProgress("teacher's features", len(source)) as progress:
        for first in range(0, len(source), IMAGES_A_PART):
            indices = range(first, min(first + IMAGES_A_PART, len(source)))
            rows, messages = _part(network, encoder, preparation, key, indices, _shown(progress, first, beat))
            if first == 0:
                _write_header(file, (len(source), rows.shape[1]))
            file.write(rows.tobytes())
            for index, message in messages.items():
                tally.add(index, message)
            tally.check()
    return {"title": teacher.title, "unreadable": {str(index): text for index, text in tally.messages.items()}}


def _part(
    network: nn.Module,
    encoder: Any,
    preparation: Preparation,
    key: dict[str, Any],
    indices: range,
    progress: Callable[[int, int], None],
) -> tuple[np.ndarray, dict[int, str]]:
    """Unit rows of images `indices`, zeros for those that cannot be read, and the messages of the latter."""
    found = extract_features(
        network, _Numbered(preparation.source), image_size=key["image_size"], resize_size=key["resize_size"],
        mean=encoder.mean, std=encoder.std, device=preparation.device, workers=preparation.workers,
        indices=indices, progress=progress,
    )  # fmt: skip
    assert found.labels is not None  # the extractor leaves out what it cannot read; these are the numbers it kept
    rows = np.zeros((len(indices), found.features.shape[1]), ROW_TYPE)
    rows[found.labels.numpy() - indices.start] = F.normalize(found.features, dim=1).numpy()
    missing = sorted(set(indices) - set(found.labels.tolist()))
    return rows, dict(zip(missing, found.unreadable, strict=True))


class _Numbered:
    """A source whose labels are its images' numbers."""

    class_names: list[str] | None = None

    def __init__(self, source: ImageSource) -> None:
        self.source, self.name = source, source.name
        self.labels: list[int] | None = list(range(len(source)))

    def __len__(self) -> int:
        return len(self.source)

    def image(self, index: int) -> Image.Image:
        return self.source.image(index)


def _shown(progress: StepProgress, first: int, beat: Heartbeat) -> Callable[[int, int], None]:
    show = progress.part(first)

    def update(done: int, total: int) -> None:
        show(done, total)
        beat()

    return update


def _write_header(file: BinaryIO, shape: tuple[int, int]) -> None:
    header = {"descr": ROW_TYPE.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
