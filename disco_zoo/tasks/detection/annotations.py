"""Annotated images, whatever file format they came from; COCO's outlines as pixel masks and back."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from disco_zoo.data.pixels.bit_depth import ALONE, ValueRanges
from disco_zoo.data.pixels.orientation import sizes_seen
from disco_zoo.data.source_image import apply_pixel_limit, too_many_pixels
from disco_zoo.errors import BadData, counted, require, shown

# Of a set's boxes: COCO's own training set has two without an area, an export gone wrong has thousands.
FAULTY_SHARE = 0.01
CUT_SHARE = 0.5  # of a set's boxes: objects reach beyond the edge now and then, corners read as sizes nearly always
OUTSIDE_PIXELS = 2.0  # annotation tools round to either side


@dataclass(frozen=True)
class Instance:
    """One object.

    Attributes:
        box: x1, y1, x2, y2 in pixels, from the image's upper left corner.
        label: number of its class in `AnnotatedSet.class_names`.
        ignore: a crowd (COCO) or a difficult object (VOC): neither found nor missed counts.
        learn: False for a crowd, whose box is not one object's. Difficult objects teach, as in detectron2.
        area: of the object in pixels, by which the evaluation tells small from large.
        outline: COCO's segmentation (polygons or RLE), or None.
    """

    box: tuple[float, float, float, float]
    label: int
    ignore: bool = False
    learn: bool = True
    area: float = 0.0
    outline: Any = None


@dataclass(frozen=True)
class AnnotatedImage:
    """An image file with its objects; `width` and `height` in pixels, as annotated (see `orientation`)."""

    path: Path
    width: int
    height: int
    instances: tuple[Instance, ...]


@dataclass(frozen=True)
class AnnotatedSet:
    """Images with boxes.

    Attributes:
        name: what a user finds it by.
        class_names: by label.
        notes: one line for each kind of repair made while reading.
        ranges: what is white in images of more than 8 bits.
        labels_from: who names the classes.
        look: facts of the images, see `look_facts`.
    """

    name: str
    class_names: tuple[str, ...]
    images: tuple[AnnotatedImage, ...]
    notes: tuple[str, ...] = ()
    ranges: ValueRanges = ALONE
    labels_from: str = ""
    look: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)

    def boxes_by_class(self) -> Counter[int]:
        """Label -> number of boxes that count."""
        return Counter(i.label for image in self.images for i in image.instances if not i.ignore)

    def lessons_by_class(self) -> Counter[int]:
        """Label -> number of boxes that are learnt from."""
        return Counter(i.label for image in self.images for i in image.instances if i.learn)

    def fingerprint(self) -> str:
        """Sha256 of classes, file names, sizes and boxes: the same wherever the files lie."""
        rows = [[image.path.name, image.width, image.height, image.instances] for image in self.images]
        text = json.dumps([self.class_names, rows], default=lambda value: vars(value), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def mended(annotated: AnnotatedSet) -> AnnotatedSet:
    """Clip boxes to their images and leave out those without an area, with a note; refuse a set full of them.

    Raises:
        BadData: no image, no box, boxes in fractions of the image, more than `FAULTY_SHARE` of them empty or outside,
            or more than `CUT_SHARE` beyond the edge.
    """
    total = sum(len(image.instances) for image in annotated.images)
    if not annotated.images:
        raise BadData(f"{annotated.name} lists no images.")
    if not sum(annotated.boxes_by_class().values()):
        raise BadData(f"{annotated.name} has no boxes to learn or to find ({counted(len(annotated), 'image')}).")
    if all(max(i.box) <= 1 for image in annotated.images for i in image.instances):
        raise BadData(f"{annotated.name}: the boxes are fractions of the image, but pixels are wanted.")
    images, faulty, clipped = [], [], 0
    for image in annotated.images:
        kept = []
        for instance in image.instances:
            box = _inside(instance.box, image)
            if box[2] - box[0] <= 0 or box[3] - box[1] <= 0:
                faulty.append(f"{shown(image.path.name)} {tuple(round(v, 1) for v in instance.box)}")
                continue
            clipped += max(abs(a - b) for a, b in zip(box, instance.box, strict=True)) > OUTSIDE_PIXELS
            kept.append(replace(instance, box=box, area=instance.area or (box[2] - box[0]) * (box[3] - box[1])))
        images.append(replace(image, instances=tuple(kept)))
    if len(faulty) > FAULTY_SHARE * total:
        raise BadData(
            f"{annotated.name}: {len(faulty)} of {total} boxes are empty or outside their image (x1, y1, x2, y2). "
            f"First: {faulty[0]}"
        )
    if clipped > CUT_SHARE * total:
        raise BadData(
            f"{annotated.name}: {clipped} of {total} boxes reach beyond their image. "
            "Does the file hold corners (x1, y1, x2, y2) where x, y, width, height are wanted?"
        )
    notes = [f"boxes without an area, left out: {len(faulty)}"] if faulty else []
    notes += [f"boxes cut at the edge of their image: {clipped}"] if clipped else []
    return replace(annotated, images=tuple(images), notes=(*annotated.notes, *notes))


def _inside(box: Sequence[float], image: AnnotatedImage) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = box
    return max(0.0, x1), max(0.0, y1), min(float(image.width), x2), min(float(image.height), y2)


def check_pair(train: AnnotatedSet, test: AnnotatedSet) -> list[str]:
    """Notes on classes that cannot be measured. Both sets have the same list of classes.

    Raises:
        BadData: a class of the test set has no box to learn from.
    """
    learnt, asked = train.lessons_by_class(), test.boxes_by_class()
    unseen = [name for label, name in enumerate(train.class_names) if asked[label] and not learnt[label]]
    if unseen:
        raise BadData(f"{train.name} has no box of {', '.join(map(shown, unseen[:5]))}, which {test.name} asks for.")
    unmeasured = [name for label, name in enumerate(train.class_names) if not asked[label]]
    more = ", …" if len(unmeasured) > 5 else ""
    return [f"not in the mean, as {test.name} has none: {', '.join(unmeasured[:5])}{more}"] if unmeasured else []


def sized(annotated: AnnotatedSet) -> AnnotatedSet:
    """Read the sizes that the annotations do not say from the image files.

    Raises:
        BadData: such a file is missing or no image.
    """
    images = []
    for image in annotated.images:
        if not (image.width and image.height):
            fault, sizes = _header(image.path)
            if fault:
                raise BadData(f"{shown(str(image.path))} {fault}.")
            image = replace(image, width=sizes[0][0], height=sizes[0][1])
        images.append(image)
    return replace(annotated, images=tuple(images))


def check_files(annotated: AnnotatedSet) -> None:
    """Refuse a set whose image files are missing, no images, or of another size than annotated.

    Raises:
        BadData: says how many, and the first.
    """
    faults = [fault for image in annotated.images if (fault := _file_fault(image))]
    if faults:
        raise BadData(f"{annotated.name}: {len(faults)} of {len(annotated)} image files are unfit. First: {faults[0]}")


def _file_fault(image: AnnotatedImage) -> str:
    name = shown(str(image.path))
    fault, sizes = _header(image.path)
    if fault:
        return f"{name} {fault}"
    if (image.width, image.height) not in sizes:
        width, height = sizes[0]
        return f"{name} has {width} × {height} pixels, its annotation says {image.width} × {image.height}"
    return ""


def _header(path: Path) -> tuple[str, tuple[tuple[int, int], ...]]:
    """What is wrong with an image file, and its sizes as people see it and as stored."""
    apply_pixel_limit()
    try:
        with Image.open(path) as opened:
            return "", sizes_seen(opened)
    except FileNotFoundError:
        return "is missing", ()
    except Image.DecompressionBombError as error:
        return f"is not read: {too_many_pixels(error)}", ()
    except Exception:  # decoders of damaged bytes raise nearly anything
        return "is no image", ()


EXTRA = "detect"


def mask_of(outline: Any, height: int, width: int) -> Tensor:
    """Pixels (height, width), uint8 0 or 1, of polygons or RLE; all 0 without an outline."""
    if outline is None:
        return torch.zeros(height, width, dtype=torch.uint8)
    coding = _coding()
    return torch.from_numpy(np.ascontiguousarray(coding.decode(rle_of(outline, height, width)))).to(torch.uint8)


def has_outline(outline: Any, height: int, width: int) -> bool:
    """Whether `mask_of` can draw it into an image of this size."""
    if not isinstance(outline, dict):
        return outline is not None
    counts = outline["counts"]
    whole = not isinstance(counts, list) or sum(counts) == height * width
    return whole and list(outline["size"]) == [height, width]


def rle_of(outline: Any, height: int, width: int) -> dict[str, Any]:
    """COCO's compressed RLE of polygons or of either kind of RLE."""
    coding = _coding()
    if isinstance(outline, list):
        return dict(coding.merge(coding.frPyObjects(outline, height, width)))
    if isinstance(outline["counts"], list):
        return dict(coding.frPyObjects(outline, height, width))
    return dict(outline)


def rle_of_pixels(mask: Tensor) -> dict[str, Any]:
    """COCO's compressed RLE of a boolean mask (H, W)."""
    rle = _coding().encode(np.asfortranarray(mask.cpu().numpy().astype(np.uint8)))
    counts = rle["counts"]
    return {"size": list(rle["size"]), "counts": counts.decode() if isinstance(counts, bytes) else counts}


def _coding() -> Any:
    return require("faster_coco_eval.core.mask", EXTRA)
