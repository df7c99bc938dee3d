"""The teacher's features of a whole training set, computed once and kept in the run folder.

BINGO's bags and CompRess's cached teacher (spec 2.6, 2.7) both come from here: images under EVAL, the
network in eval mode, rows L2-normalised. A bank is a teacher cache of one view an image, so it is built by all
processes, goes on after a crash, and is never used for another teacher, other images or another transform.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from disco_zoo.data.dataset import ImageSource
from disco_zoo.data.source_image import SourceImage
from disco_zoo.data.unreadable import unreadable_limit
from disco_zoo.errors import BadData
from disco_zoo.models.encoder import feature_dim_of, frozen, pooled
from disco_zoo.models.teacher import Teacher, teacher_key
from disco_zoo.teacher_cache.builder import Building, SlotViews, build_cache
from disco_zoo.teacher_cache.cache_dir import CacheFolder
from disco_zoo.teacher_cache.rows import ROW_TYPE, CacheKey
from disco_zoo.transforms.eval import eval_resize_size, eval_transform, normalize


@dataclass(frozen=True)
class Preparation:
    """Inputs for computations of a method before training.

    Attributes:
        source: the training images.
        folder: of the run; what is expensive is kept there, keyed by what it was computed from.
        seed: of the run.
        device: where the networks are.
        workers: processes that decode images.
    """

    source: ImageSource
    folder: Path
    seed: int
    device: torch.device | str
    workers: int


FeatureKind = Literal["backbone", "embedding"]

FOLDER = "teacher_features"


@dataclass(frozen=True)
class FeatureBank:
    """Unit feature rows of every image of a source.

    Attributes:
        rows: float16 (N, D) on disk, L2-normalised; row i is of image i, zeros where that cannot be read. Of unit rows
            half precision keeps about three decimals a number: cosines move by some 1e-5.
        unreadable: what was wrong with those, by index.
        path: of the folder.
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


def bank_key(teacher: Teacher, source: ImageSource, kind: FeatureKind, resize_size: int | None) -> CacheKey:
    """All that decides the rows."""
    encoder = teacher.encoder
    return CacheKey(
        {
            "teacher": teacher_key(teacher),
            "features": "backbone" if teacher.headless else kind,  # without a head both kinds are the same
            "data": source.fingerprint(),
            "images": len(source),
            "image_size": encoder.image_size,
            "resize_size": resize_size or eval_resize_size(encoder.image_size),
            "mean": list(encoder.mean),
            "std": list(encoder.std),
            "row_type": ROW_TYPE,
        }
    )


def teacher_bank(
    teacher: Teacher, preparation: Preparation, *, kind: FeatureKind, resize_size: int | None = None
) -> FeatureBank:
    """The bank of a run: the one in its folder where it fits, else computed by all processes together.

    Args:
        teacher: in any mode; it is put into eval for this and back.
        kind: "backbone" for pooled features, "embedding" for what the teacher's head makes of them.
        resize_size: shorter side before the centre crop at the teacher's size; None for the papers' 256 to 224.

    Raises:
        BadData: too many images cannot be read.
        BadCache: no room.
        Interrupted: Ctrl-C; what is finished is kept.
    """
    source, encoder = preparation.source, teacher.encoder
    key = bank_key(teacher, source, kind, resize_size)
    features, size = key.values["features"], key.values["image_size"]
    network = encoder.backbone if features == "backbone" else nn.Sequential(encoder.backbone, encoder.head)
    cache = CacheFolder(preparation.folder / FOLDER / f"{features}_{key.id}", "choose another --out")
    facts = {
        "key": key.values,
        "images": len(source),
        "title": teacher.title,
        "data": source.name,
        "width": feature_dim_of(teacher.backbone) if features == "backbone" else teacher.embed_dim,
    }

    def rows_of(images: Tensor) -> Tensor:
        seen = normalize(images.to(preparation.device), encoder.mean, encoder.std)
        return F.normalize(pooled(network, seen), dim=1)

    with frozen(encoder, preparation.device):
        build_cache(
            cache,
            1,
            Building(
                "teacher's features",
                SlotViews(source, _Eval(eval_transform(size, key.values["resize_size"])), size),
                rows_of,
                facts,
                max_unreadable_images=unreadable_limit(len(source)),
                workers=preparation.workers,
                unit="images",
                instead="Use another teacher",
            ),
        )
    return FeatureBank(cache.rows()[0], cache.journal.unreadable(), cache.path, key.values)


@dataclass(frozen=True)
class _Eval:
    """The one view of an image: under EVAL."""

    transform: Callable[[Image.Image], Tensor]

    def __call__(self, image: SourceImage, index: int, slot: int) -> Tensor:
        return self.transform(image.rgb())
