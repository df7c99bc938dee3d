"""BINGO's bags: for each image its nearest neighbours in the teacher's eyes, one of which goes with it each epoch.

A bag holds no image twice and never the image itself, however often `data.extra_repeats` shows it. Built once from the
feature bank and kept beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from disco_zoo.core.array_file import ArrayFile, keep_array, kept_path, open_kept, open_kept_as
from disco_zoo.core.console import StepProgress
from disco_zoo.core.distributed import Heartbeat, on_first_process
from disco_zoo.core.random_streams import stream_generator
from disco_zoo.errors import BadRecipe, BadRunFolder
from disco_zoo.models.encoder import feature_dim_of
from disco_zoo.models.teacher import Teacher, teacher_key
from disco_zoo.modules.nearest_neighbors import FLAT_LIMIT, nearest_neighbors
from disco_zoo.teacher_cache.feature_bank import FOLDER, FeatureBank, teacher_bank

if TYPE_CHECKING:  # the methods import this file
    from disco_zoo.teacher_cache.feature_bank import Preparation


@dataclass(frozen=True)
class BagCompanions:
    """Draws each image's companion of an epoch from its bag, uniformly.

    Attributes:
        bags: int32 (N, bag size).
        seed: of the run.
    """

    bags: np.ndarray
    seed: int

    def __call__(self, epoch: int, index: int) -> int:
        """The companion of image `index`, a function of (seed, epoch, index) alone."""
        generator = stream_generator("bag", self.seed, epoch, index)
        drawn = torch.randint(self.bags.shape[1], (), generator=generator).item()
        return int(self.bags[index, int(drawn)])


def teacher_bags(
    teacher: Teacher, preparation: Preparation, *, bag_size: int, resize_size: int | None = None
) -> np.ndarray:
    """Bags int32 (N, bag_size) of the run's images: those in the run folder, else built by the first process.

    An image that cannot be read is in no other's bag; its own bag holds but itself, and nobody asks for it.

    Raises:
        BadRecipe: fewer images than a bag needs.
        BadData, BadRunFolder, MissingExtra: see `teacher_bank` and `nearest_neighbors`.
    """
    bank = teacher_bank(teacher, preparation, kind="backbone", resize_size=resize_size)
    copies = preparation.source.first_copies()
    key = {**bank.key, "width": bank.width, "bag_size": bag_size, **_distinct(copies)}
    path = kept_path(preparation.folder / FOLDER, "bags", key)

    def build(beat: Heartbeat) -> None:
        if open_kept_as(path, key) is None:
            keep_array(path, key, lambda partial: _write_bags(partial, bank, copies, bag_size, beat))

    on_first_process(build)
    kept = open_kept_as(path, key)
    if kept is None:
        raise BadRunFolder(f"{path} is damaged, or not on a disk that all processes share. Delete it, or choose --out")
    return np.array(kept.array)


def bags_from_file(path: Path, teacher: Teacher, preparation: Preparation, *, bag_size: int) -> np.ndarray:
    """Bags of an earlier run, checked against this one's teacher and images.

    Args:
        path: a `bags_*.npy` in a run folder, with its `.json` beside it.

    Raises:
        BadRecipe: it is missing, damaged, or of another teacher, data or bag size.
    """
    kept = open_kept(path)
    if kept is None:
        raise BadRecipe(f"method.bags: {path} is no bag file of ours, or damaged. Without it: --set method.bags=null")
    wrong = _mismatch(kept, teacher, preparation, bag_size)
    if wrong:
        raise BadRecipe(f"method.bags: {path} {wrong}. To build bags for this run: --set method.bags=null")
    return np.array(kept.array)


def _mismatch(kept: ArrayFile, teacher: Teacher, preparation: Preparation, bag_size: int) -> str | None:
    """In words, what does not fit."""
    key, width, images = kept.key, feature_dim_of(teacher.backbone), len(preparation.source)
    if key.get("width") != width:
        return f"was built from features of width {key.get('width')}, this teacher's have {width}"
    if key.get("teacher") != teacher_key(teacher):
        return f"was built by another teacher than {teacher.title}"
    if key.get("data") != preparation.source.fingerprint():
        return f"was built from other images than {preparation.source.name}"
    if key.get("distinct") != _distinct(preparation.source.first_copies()).get("distinct"):
        return "may hold copies of an image in its own bag"
    if kept.array.shape != (images, bag_size):
        rows = " x ".join(map(str, kept.array.shape))
        return f"holds {rows} neighbours, this run needs {images} x {bag_size}"
    return None


def _distinct(copies: np.ndarray) -> dict[str, int]:
    """For the key, the number of distinct images; nothing where all are, as files of before have nothing."""
    number = len(np.unique(copies))
    return {"distinct": number} if number < len(copies) else {}


def _write_bags(path: Path, bank: FeatureBank, copies: np.ndarray, bag_size: int, beat: Heartbeat) -> Mapping[str, Any]:
    numbers = np.intersect1d(bank.readable(), copies)
    with StepProgress("neighbours", len(numbers)) as progress:

        def show(done: int, total: int) -> None:
            progress.update(done, total)
            beat()

        found = nearest_neighbors(bank.rows, bag_size, numbers, progress=show)
    bags = np.repeat(np.arange(len(bank.rows), dtype=np.int32)[:, None], bag_size, axis=1)
    bags[numbers] = found
    bags = bags[copies]
    with path.open("wb") as file:
        np.save(file, bags)
    return {"search": "exact" if len(numbers) <= FLAT_LIMIT else "inverted lists"}
