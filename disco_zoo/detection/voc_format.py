"""Pascal VOC: one XML an image in Annotations/, lists of image names in ImageSets/Main/."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from disco_zoo.detection.annotations import AnnotatedImage, AnnotatedSet, Instance
from disco_zoo.errors import BadData, shown

SUFFIXES = (".jpg", ".jpeg", ".png", ".JPEG", ".JPG", ".PNG")
_Rows = list[tuple[str, tuple[float, float, float, float], bool]]


def read_voc(folders: Sequence[Path], split: str, class_names: Sequence[str] | None = None) -> AnnotatedSet:
    """Read one split of one or several VOC folders (VOC2007 and VOC2012 are trained on together).

    VOC counts pixels from 1 and includes the last one; the boxes given back count from 0 and do not.

    Args:
        split: name of the list in ImageSets/Main, e.g. "trainval".
        class_names: in the wanted order; by default those that occur, by alphabet.

    Raises:
        BadData: a list or an annotation is missing or damaged, or has a class that is not among `class_names`.
    """
    read = [_read(folder, name) for folder in folders for name in _names(folder, split)]
    found = sorted({label for _, _, _, rows in read for label, _, _ in rows})
    names = tuple(class_names or found)
    title = f"{', '.join(str(folder) for folder in folders)} ({split})"
    if unknown := [name for name in found if name not in names]:
        raise BadData(f"{title} has a class that the training images do not: {', '.join(map(shown, unknown[:5]))}.")
    number = {name: label for label, name in enumerate(names)}
    images = tuple(
        AnnotatedImage(
            path, width, height, tuple(Instance(box, number[label], difficult) for label, box, difficult in rows)
        )
        for path, width, height, rows in read
    )
    return AnnotatedSet(title, names, images)


def voc_splits(folder: Path) -> set[str]:
    """Names of the lists in a VOC folder; empty for any other folder."""
    lists = folder / "ImageSets" / "Main"
    return {path.stem for path in lists.glob("*.txt") if "_" not in path.stem} if lists.is_dir() else set()


def _names(folder: Path, split: str) -> list[str]:
    path = folder / "ImageSets" / "Main" / f"{split}.txt"
    try:
        return [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise BadData(f"{path} cannot be read.") from error


def _read(folder: Path, name: str) -> tuple[Path, int, int, _Rows]:
    path = folder / "Annotations" / f"{name}.xml"
    try:
        root = ElementTree.parse(path).getroot()
        width, height = (int(_text(root, f"size/{side}")) for side in ("width", "height"))
        rows = [
            (_text(node, "name").strip(), _box(node), (node.findtext("difficult") or "0").strip() == "1")
            for node in root.iter("object")
        ]
    except FileNotFoundError as error:
        raise BadData(f"there is no annotation file {path}.") from error
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise BadData(f"{path} is no VOC annotation: {shown(str(error))}") from error
    return _image_path(folder, name), width, height, rows


def _box(node: ElementTree.Element) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (float(_text(node, f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax"))
    return x1 - 1, y1 - 1, x2, y2


def _text(node: ElementTree.Element, path: str) -> str:
    text = node.findtext(path)
    if text is None:
        raise ValueError(f"no <{path}> in <{node.tag}>")
    return text


def _image_path(folder: Path, name: str) -> Path:
    stem = folder / "JPEGImages" / name
    paths = [stem.with_name(stem.name + suffix) for suffix in SUFFIXES]
    return next((path for path in paths if path.is_file()), paths[0])
