"""Pascal VOC: one XML an image in Annotations/, lists of image names in ImageSets/Main/."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from disco_zoo.data.image_files import IMAGE_SUFFIXES
from disco_zoo.errors import BadData, shown
from disco_zoo.tasks.detection.data.annotations import AnnotatedImage, AnnotatedSet, Instance

SUFFIXES = (".jpg", ".jpeg", ".png", ".JPEG", ".JPG", ".PNG", ".bmp", ".webp", *IMAGE_SUFFIXES)
IMAGE_FOLDERS = ("JPEGImages", "images", "Images", ".", "Annotations")
_Rows = list[tuple[str, tuple[float, float, float, float], bool]]


def read_voc(folders: Sequence[Path], split: str | None, class_names: Sequence[str] | None = None) -> AnnotatedSet:
    """Read one split of one or several VOC folders (VOC2007 and VOC2012 are trained on together).

    VOC counts pixels from 1 and includes the last one; the boxes given back count from 0 and do not. An image whose
    size its annotation does not say has width and height 0.

    Args:
        split: name of the list in ImageSets/Main, e.g. "trainval"; None reads every annotation there is.
        class_names: in the wanted order; by default those that occur, by alphabet.

    Raises:
        BadData: a list or an annotation is missing or damaged, or has a class that is not among `class_names`.
    """
    read = [_read(folder, name) for folder in folders for name in _names(folder, split)]
    found = sorted({label for _, _, _, rows in read for label, _, _ in rows})
    names = tuple(class_names or found)
    title = ", ".join(str(folder) for folder in folders) + (f" ({split})" if split else "")
    if unknown := [name for name in found if name not in names]:
        raise BadData(f"{title} has a class that the training images do not: {', '.join(map(shown, unknown[:5]))}.")
    number = {name: label for label, name in enumerate(names)}
    images = tuple(
        AnnotatedImage(
            path, width, height, tuple(Instance(box, number[label], ignore=difficult) for label, box, difficult in rows)
        )
        for path, width, height, rows in read
    )
    return AnnotatedSet(title, names, images, labels_from="the names in the annotations")


def voc_splits(folder: Path) -> set[str]:
    """Names of the lists in a VOC folder; empty for any other folder."""
    lists = folder / "ImageSets" / "Main"
    return {path.stem for path in lists.glob("*.txt") if "_" not in path.stem} if lists.is_dir() else set()


def without_lists(folder: Path) -> bool:
    """Whether a folder holds VOC's annotations, in `Annotations` or themselves, and no lists of images."""
    return not voc_splits(folder) and bool(_annotation_files(folder))


def _annotation_files(folder: Path) -> list[Path]:
    return sorted((folder / "Annotations").glob("*.xml")) or sorted(folder.glob("*.xml"))


def _names(folder: Path, split: str | None) -> list[str]:
    if split is None:
        return [path.stem for path in _annotation_files(folder)]
    path = folder / "ImageSets" / "Main" / f"{split}.txt"
    try:
        return [line.split()[0] for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise BadData(f"{path} cannot be read.") from error


def _read(folder: Path, name: str) -> tuple[Path, int, int, _Rows]:
    inside = folder / "Annotations"
    path = (inside if inside.is_dir() else folder) / f"{name}.xml"
    try:
        root = ElementTree.parse(path).getroot()
        width, height = (int(root.findtext(f"size/{side}") or 0) for side in ("width", "height"))
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
    paths = [folder / place / f"{name}{suffix}" for place in IMAGE_FOLDERS for suffix in SUFFIXES]
    return next((path for path in paths if path.is_file()), paths[0])
