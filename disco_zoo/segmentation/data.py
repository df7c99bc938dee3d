"""Images with a mask of class numbers each: folders of PNGs, or VOC's SegmentationClass."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from disco_zoo.datasets import to_rgb
from disco_zoo.errors import BadData, shown

IGNORED = 255
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
TRAIN_NAMES, TEST_NAMES = ("train", "training"), ("val", "valid", "validation", "test")
IMAGE_FOLDERS, MASK_FOLDERS = ("images", "image"), ("masks", "annotations", "labels", "mask")
# Pascal VOC 2012, by number.
VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "dining table", "dog", "horse", "motorbike", "person", "potted plant", "sheep", "sofa", "train", "tv monitor",
)  # fmt: skip
LAYOUTS = "train/images + train/masks, images/train + masks/train, or VOC's JPEGImages + SegmentationClass"
_INDEX_MODES = ("P", "L", "1", "I", "I;16")


@dataclass(frozen=True)
class MaskedSet:
    """Images with masks.

    Attributes:
        name: what a user finds it by.
        pairs: image file and mask file of each.
        class_names: by number in the masks; None where nobody says, before the masks have been read.
    """

    name: str
    pairs: tuple[tuple[Path, Path], ...]
    class_names: tuple[str, ...] | None

    def __len__(self) -> int:
        return len(self.pairs)

    def image(self, index: int) -> Image.Image:
        """The image as RGB.

        Raises:
            BadData: no whole image.
        """
        return to_rgb(_opened(self.pairs[index][0]))

    def mask(self, index: int) -> Tensor:
        """Class numbers int64 (H, W); 255 is ignored.

        Raises:
            BadData: no whole image, or one of colours instead of numbers.
        """
        path = self.pairs[index][1]
        mask = _opened(path)
        if mask.mode not in _INDEX_MODES:
            raise BadData(
                f"{path} is a picture in colours ({mask.mode}); a mask is grey or palette PNG of class numbers."
            )
        return torch.from_numpy(np.array(mask).astype(np.int64))

    def fingerprint(self) -> str:
        """Sha256 of the files' names and sizes in bytes."""
        rows = [f"{path.name} {path.stat().st_size}" for pair in self.pairs for path in pair]
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def open_masked_pair(data: str, eval_data: str | None = None) -> tuple[MaskedSet, MaskedSet]:
    """Open training and test images with masks.

    Args:
        data: a folder in one of `LAYOUTS`; `classes.txt` in it names the classes, one a line.
        eval_data: another one; default: the val or test split of `data`.

    Raises:
        BadData: missing, empty, or images without masks.
    """
    path = Path(data).expanduser()
    if not path.is_dir():
        raise BadData(f"there is no folder {data}. Type: --data FOLDER, with {LAYOUTS}")
    train = _open(path, TRAIN_NAMES)
    if eval_data is None:
        return train, _open(path, TEST_NAMES)
    other = Path(eval_data).expanduser()
    if not other.is_dir():
        raise BadData(f"there is no folder {eval_data}.")
    return train, _open(other, (*TEST_NAMES, *TRAIN_NAMES))


def _open(path: Path, splits: Sequence[str]) -> MaskedSet:
    voc = next((folder for folder in _voc_candidates(path) if (folder / "SegmentationClass").is_dir()), None)
    if voc is not None:
        return _open_voc(voc, splits)
    for split in splits:
        for image_name in IMAGE_FOLDERS:
            for mask_name in MASK_FOLDERS:
                for images, masks in (
                    (path / split / image_name, path / split / mask_name),
                    (path / image_name / split, path / mask_name / split),
                ):
                    if images.is_dir() and masks.is_dir():
                        return MaskedSet(str(images), _pairs(images, masks), _class_names(path))
    raise BadData(f"{path} has no {' or '.join(splits)} images with masks. Expected: {LAYOUTS}")


def _voc_candidates(path: Path) -> list[Path]:
    return [path, *sorted(path.glob("VOC*"), reverse=True), *sorted(path.glob("VOCdevkit/VOC*"), reverse=True)]


def _open_voc(folder: Path, splits: Sequence[str]) -> MaskedSet:
    lists = folder / "ImageSets" / "Segmentation"
    found = next((lists / f"{split}.txt" for split in splits if (lists / f"{split}.txt").is_file()), None)
    if found is None:
        raise BadData(f"{lists} has none of {', '.join(f'{split}.txt' for split in splits)}.")
    names = [line.split()[0] for line in found.read_text(encoding="utf-8").splitlines() if line.strip()]
    pairs = tuple((folder / "JPEGImages" / f"{n}.jpg", folder / "SegmentationClass" / f"{n}.png") for n in names)
    missing = [path for pair in pairs for path in pair if not path.is_file()]
    if not pairs or missing:
        raise BadData(
            f"{found}: " + (f"{len(missing)} files are missing. First: {missing[0]}" if missing else "empty.")
        )
    return MaskedSet(str(found), pairs, _class_names(folder) or VOC_CLASSES)


def _pairs(images: Path, masks: Path) -> tuple[tuple[Path, Path], ...]:
    files = sorted(path for path in images.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    by_stem = {path.stem: path for path in masks.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES}
    if not files:
        raise BadData(f"{images} holds no images.")
    without = [path for path in files if path.stem not in by_stem]
    if without:
        raise BadData(f"{masks} has no mask for {len(without)} of {len(files)} images. First: {shown(without[0].name)}")
    return tuple((path, by_stem[path.stem]) for path in files)


def _class_names(folder: Path) -> tuple[str, ...] | None:
    path = folder / "classes.txt"
    if not path.is_file():
        return None
    return tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())


def _opened(path: Path) -> Image.Image:
    try:
        with Image.open(path) as opened:
            opened.load()
            return opened
    except Exception as error:  # decoders of damaged bytes raise nearly anything
        raise BadData(f"{path} is unreadable: {(str(error).splitlines() or [type(error).__name__])[0]}") from error
