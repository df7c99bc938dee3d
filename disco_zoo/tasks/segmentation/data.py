"""Images with a mask of class numbers each: folders of PNGs, or VOC's SegmentationClass."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from disco_zoo.core.files import user_path
from disco_zoo.data.file_tree import images_below
from disco_zoo.data.image_list import ranges_of_files
from disco_zoo.data.passing_errors import cannot_read, is_passing, read_patiently
from disco_zoo.data.pixels.bit_depth import ALONE, ValueRanges
from disco_zoo.data.pixels.orientation import sizes_seen
from disco_zoo.data.source_image import apply_pixel_limit, open_image, too_many_pixels
from disco_zoo.data.split_files import split_folder, subfolder
from disco_zoo.errors import BadData, CannotRead, own_words, shown

IGNORED = 255
TRAIN_NAMES, TEST_NAMES = ("train", "training"), ("val", "valid", "validation", "test", "testing")
IMAGE_FOLDERS = ("images", "image", "img_dir", "imgs")
MASK_FOLDERS = ("masks", "annotations", "labels", "mask", "ann_dir", "gt")
# Pascal VOC 2012, by number.
VOC_CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "dining table",
    "dog",
    "horse",
    "motorbike",
    "person",
    "potted plant",
    "sheep",
    "sofa",
    "train",
    "tv monitor",
)
LAYOUTS = "images + masks, train/images + train/masks, images/train + masks/train, or VOC's SegmentationClass"
_INDEX_MODES = ("P", "L", "1", "I", "I;16")


@dataclass(frozen=True)
class MaskedSet:
    """Images with masks.

    Attributes:
        name: what a user finds it by.
        pairs: image file and mask file of each.
        class_names: by number in the masks; None where nobody says, before the masks have been read.
        ranges: what is white in images of more than 8 bits.
        look: facts of the images, see `look_facts`; nothing before the masks have been read.
    """

    name: str
    pairs: tuple[tuple[Path, Path], ...]
    class_names: tuple[str, ...] | None
    ranges: ValueRanges = ALONE
    look: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pairs)

    def image(self, index: int) -> Image.Image:
        """The image as RGB, turned as its mask sees it.

        Raises:
            BadData: no whole image, or no mask.
        """
        image_path, mask_path = self.pairs[index]
        with _header(mask_path) as mask:
            size = mask.size
        return whole_rgb(image_path, size, self.ranges)

    def mask(self, index: int) -> Tensor:
        """Class numbers int64 (H, W); 255 is ignored.

        Raises:
            BadData: no whole image, or one of colours instead of numbers.
        """
        return self.numbered(index)[0]

    def numbered(self, index: int) -> tuple[Tensor, dict[int, tuple[int, ...]]]:
        """As `mask`, and the colour that its palette gives to each number it holds; nothing without a palette.

        Raises:
            BadData: see `mask`.
        """
        path = self.pairs[index][1]
        mask = opened(path)
        if mask.format == "JPEG":
            raise BadData(f"{path} is a JPEG, which blurs class numbers; a mask is grey or palette PNG.")
        if mask.mode not in _INDEX_MODES:
            raise BadData(
                f"{path} is a picture in colours ({mask.mode}); a mask is grey or palette PNG of class numbers."
            )
        numbers = np.array(mask).astype(np.int64)
        colors = mask.getpalette("RGB") if mask.mode == "P" else None
        held = [] if colors is None else [number for number in np.unique(numbers).tolist() if 3 * number < len(colors)]
        palette = {number: tuple(colors[3 * number : 3 * number + 3]) for number in held} if colors else {}
        return torch.from_numpy(numbers), palette

    def fingerprint(self) -> str:
        """Sha256 of the files' names and sizes in bytes."""
        rows = [f"{path.name} {path.stat().st_size}" for pair in self.pairs for path in pair]
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def open_masked_pair(data: str, eval_data: str | None = None) -> tuple[MaskedSet, MaskedSet | None]:
    """Open training and test images with masks; the latter are None where `data` is not split.

    Args:
        data: a folder in one of `LAYOUTS`; `classes.txt` in it names the classes, one a line.
        eval_data: another one; default: the val or test split of `data`.

    Raises:
        BadData: missing, empty, or images without masks.
    """
    path = user_path(data)
    if not path.is_dir():
        raise BadData(f"there is no folder {data}. Type: --data FOLDER, with {LAYOUTS}")
    train = _open(path, TRAIN_NAMES) or _required(path, ("",))
    if eval_data is None:
        test = _open(path, TEST_NAMES)
    else:
        other = user_path(eval_data)
        if not other.is_dir():
            raise BadData(f"there is no folder {eval_data}.")
        test = _required(other, (*TEST_NAMES, *TRAIN_NAMES, ""))
    ranges = ranges_of_files(data, [image for masked in (train, test) if masked for image, _ in masked.pairs])
    return replace(train, ranges=ranges), replace(test, ranges=ranges) if test else None


def _required(path: Path, splits: Sequence[str]) -> MaskedSet:
    if (found := _open(path, splits)) is None:
        raise BadData(f"{path} has no images with masks. Expected: {LAYOUTS}")
    return found


def _open(path: Path, splits: Sequence[str]) -> MaskedSet | None:
    """The first split that is there, "" being a folder without splits; None where there is none of them."""
    voc = next((folder for folder in _voc_candidates(path) if (folder / "SegmentationClass").is_dir()), None)
    if voc is not None:
        return _open_voc(voc, splits)
    for split in splits:
        for image_name in IMAGE_FOLDERS:
            for mask_name in MASK_FOLDERS:
                inner = split_folder(path, split) if split else path
                outer = subfolder(path, image_name), subfolder(path, mask_name)
                for images, masks in (
                    (subfolder(inner, image_name), subfolder(inner, mask_name)),
                    tuple(split_folder(folder, split) if split else folder for folder in outer),
                ):
                    if images.is_dir() and masks.is_dir() and (split or not _is_split(images)):
                        return MaskedSet(str(images), _pairs(images, masks), _class_names(path))
    return None


def _is_split(images: Path) -> bool:
    return any(split_folder(images, name).is_dir() for name in (*TRAIN_NAMES, *TEST_NAMES))


def _voc_candidates(path: Path) -> list[Path]:
    return [path, *sorted(path.glob("VOC*"), reverse=True), *sorted(path.glob("VOCdevkit/VOC*"), reverse=True)]


def _open_voc(folder: Path, splits: Sequence[str]) -> MaskedSet:
    lists = folder / "ImageSets" / "Segmentation"
    found = next((lists / f"{split}.txt" for split in splits if (lists / f"{split}.txt").is_file()), None)
    if found is None:
        raise BadData(f"{lists} has none of {', '.join(f'{split}.txt' for split in splits)}.")
    names = [line.split()[0] for line in found.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    pairs = tuple((folder / "JPEGImages" / f"{n}.jpg", folder / "SegmentationClass" / f"{n}.png") for n in names)
    missing = [path for pair in pairs for path in pair if not path.is_file()]
    if not pairs or missing:
        raise BadData(
            f"{found}: " + (f"{len(missing)} files are missing. First: {missing[0]}" if missing else "empty.")
        )
    return MaskedSet(str(found), pairs, _class_names(folder) or VOC_CLASSES)


def _pairs(images: Path, masks: Path) -> tuple[tuple[Path, Path], ...]:
    """By the path inside both folders without its ending, which a mask may have behind the image's (a.jpg.png)."""
    files = {path.relative_to(images): path for path in _image_files(images)}
    by_name = {path.relative_to(masks).with_suffix(""): path for path in _image_files(masks)}
    if not files:
        raise BadData(f"{images} holds no images.")
    pairs = {path: by_name.get(name.with_suffix(""), by_name.get(name)) for name, path in files.items()}
    without = [path for path, mask in pairs.items() if mask is None]
    if without:
        raise BadData(f"{masks} has no mask for {len(without)} of {len(files)} images. First: {shown(without[0].name)}")
    return tuple((path, mask) for path, mask in pairs.items() if mask is not None)


def _image_files(folder: Path) -> list[Path]:
    return sorted(folder / path for path in images_below(folder))


def _class_names(folder: Path) -> tuple[str, ...] | None:
    path = folder / "classes.txt"
    if not path.is_file():
        return None
    return tuple(line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip())


@contextlib.contextmanager
def _header(path: Path) -> Iterator[Image.Image]:
    apply_pixel_limit()
    try:
        with Image.open(path) as image:
            yield image
    except Exception as error:  # decoders of damaged bytes raise nearly anything
        if is_passing(error):
            raise cannot_read(str(path), error) from error
        raise _unreadable(path, error) from error


def whole_rgb(path: Path, size: tuple[int, int] | None = None, ranges: ValueRanges = ALONE) -> Image.Image:
    """A whole image as RGB, upright; `size` as in `open_image`.

    Raises:
        BadData: missing or damaged.
    """
    try:
        return open_image(path, size, ranges)
    except CannotRead:
        raise
    except Exception as error:  # decoders of damaged bytes raise nearly anything
        raise _unreadable(path, error) from error


def opened(path: Path) -> Image.Image:
    """A whole image.

    Raises:
        BadData: missing or damaged.
    """

    def read() -> Image.Image:
        apply_pixel_limit()
        with Image.open(path) as image:
            image.load()
            return image

    try:
        return read_patiently(read, lambda: str(path))
    except CannotRead:
        raise
    except Exception as error:  # decoders of damaged bytes raise nearly anything
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> BadData:
    reason = "it is missing" if isinstance(error, FileNotFoundError) else own_words(error)
    if isinstance(error, Image.DecompressionBombError):
        reason = too_many_pixels(error)
    return BadData(f"{path} is unreadable: {reason}")


def image_sizes(path: Path) -> tuple[tuple[int, int], ...]:
    """Width and height of an image as people see it and as stored, from its header.

    Raises:
        BadData: no image.
    """
    with _header(path) as image:
        return sizes_seen(image)
