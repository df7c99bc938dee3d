"""Opens annotated training and test images from --data: COCO's files, Pascal VOC's folders, or one set to split.

Pascal VOC has one XML an image in Annotations/, lists of image names in ImageSets/Main/.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from xml.etree import ElementTree

from disco_zoo.core.files import user_path
from disco_zoo.data.image_files import IMAGE_SUFFIXES
from disco_zoo.data.image_list import ranges_of_files
from disco_zoo.data.subsets import held_out_images, held_out_note
from disco_zoo.errors import BadData, shown
from disco_zoo.tasks.detection.annotations import (
    AnnotatedImage,
    AnnotatedSet,
    Instance,
    check_files,
    check_pair,
    mended,
    sized,
)
from disco_zoo.tasks.detection.coco_format import read_coco
from disco_zoo.tasks.listed_look import Listed, looks_of


def held_out(annotated: AnnotatedSet) -> tuple[AnnotatedSet, AnnotatedSet]:
    """Split into images to train on and a fifth to measure on. Each class keeps an image to learn from.

    Raises:
        BadData: none with a box can be spared.
    """
    chosen = held_out_images([{i.label for i in image.instances if i.learn} for image in annotated.images])
    train, test = (
        tuple(image for number, image in enumerate(annotated.images) if (number in chosen) == held)
        for held in (False, True)
    )
    if not any(image.instances for image in test):
        raise BadData(f"{annotated.name} has too few images to hold some out. Name those to measure on: --eval-data")
    note = held_out_note(len(test), len(annotated))
    return (
        replace(annotated, name=f"{annotated.name} (train)", images=train),
        replace(annotated, name=f"{annotated.name} (held out)", images=test, notes=(note,)),
    )


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


TRAIN_NAMES, TEST_NAMES = ("train", "training"), ("val", "valid", "test", "validation", "testing")
VOC_TRAIN, VOC_TEST = ("trainval", "train"), ("test", "val")
LAYOUTS = "annotations/instances_train*.json, train/_annotations.coco.json, one .json, or VOC's Annotations/*.xml"
_PATTERNS = (
    "annotations/instances_{}*.json",
    "{}/_annotations.coco.json",
    "annotations/{}*.json",
    "labels/{}*.json",
    "{}*.json",
    "{}/*.json",
)


def open_annotated_pair(data: str, eval_data: str | None = None) -> tuple[AnnotatedSet, AnnotatedSet]:
    """Open training and test images with boxes, and check all that can be checked before the training.

    Args:
        data: a folder in COCO's or VOC's layout (VOCdevkit: all years are trained on together), or an instances file.
        eval_data: another folder or instances file to measure on; default: the val, valid or test split of `data`, or
            a part of the training images where there is none.

    Raises:
        BadData: missing, empty, damaged, of other classes, or without image files.
    """
    path = user_path(data)
    if not path.exists():
        raise BadData(f"there is no data at {data}. Type: --data FOLDER, with {LAYOUTS}")
    train = mended(sized(_one_set(path, VOC_TRAIN, TRAIN_NAMES)))
    test = _named_test(user_path(eval_data), train) if eval_data else _test(path, train)
    if test is None:
        train, test = held_out(train)
    else:
        test = mended(sized(test))
    notes = check_pair(train, test)
    for annotated in (train, test):
        check_files(annotated)
    empty = sum(not any(i.learn for i in image.instances) for image in train.images)
    unused = (f"training images without a box, left out: {empty}",) if empty else ()
    train, test = replace(train, notes=(*train.notes, *unused)), replace(test, notes=(*test.notes, *notes))
    ranges = ranges_of_files(data, [image.path for annotated in (train, test) for image in annotated.images])
    looks = looks_of([_listed(train, "train"), _listed(test, "test")], ranges)
    return replace(train, ranges=ranges, look=looks["train"]), replace(test, ranges=ranges, look=looks["test"])


def _listed(annotated: AnnotatedSet, split: str) -> Listed:
    instances = [instance for image in annotated.images for instance in image.instances]
    ignored = sum(instance.ignore for instance in instances)
    objects = {"boxes": len(instances) - ignored, "boxes of crowds or difficult objects": ignored}
    objects["outlines"] = sum(instance.outline is not None for instance in instances)
    return Listed(
        annotated.name,
        [image.path for image in annotated.images],
        split,
        "",
        len(annotated.class_names),
        annotated.labels_from,
        {kind: number for kind, number in objects.items() if number or kind == "boxes"},
        annotated.notes,
    )


def _one_set(
    path: Path, voc_names: tuple[str, ...], coco_names: tuple[str, ...], class_names: Sequence[str] | None = None
) -> AnnotatedSet:
    """The first split of these names, or all that there is; `class_names` are those to keep to."""
    if path.is_file():
        return read_coco(path, class_names)
    if folders := _voc_folders(path):
        split = _voc_split(folders, voc_names)
        return read_voc([folder for folder in folders if split in voc_splits(folder)], split, class_names)
    if file := _coco_file(path, coco_names):
        return read_coco(file, class_names)
    if without_lists(path):
        return read_voc([path], None, class_names)
    return read_coco(_only_file(path), class_names)


def _test(path: Path, train: AnnotatedSet) -> AnnotatedSet | None:
    """None where `path` has training images alone."""
    if path.is_file():
        return None
    if folders := _voc_folders(path):
        trained = _voc_split(folders, VOC_TRAIN)
        # trainval holds val: measuring on it would measure what was trained on.
        wanted = VOC_TEST[:1] if trained == "trainval" else VOC_TEST
        split = _voc_split(folders, wanted)
        return read_voc([folder for folder in folders if split in voc_splits(folder)], split, train.class_names)
    file = _coco_file(path, TEST_NAMES)
    return read_coco(file, train.class_names) if file else None


def _named_test(path: Path, train: AnnotatedSet) -> AnnotatedSet:
    if not path.exists():
        raise BadData(f"there is no data at {path}.")
    return _one_set(path, (*VOC_TEST, *VOC_TRAIN), (*TEST_NAMES, *TRAIN_NAMES), train.class_names)


def _voc_folders(path: Path) -> list[Path]:
    """The folder itself, or VOC2007 and VOC2012 in it or in its VOCdevkit."""
    if voc_splits(path):
        return [path]
    tops = [top for top in (path, path / "VOCdevkit") if top.is_dir()]
    return [folder for top in tops for folder in sorted(top.glob("VOC*")) if voc_splits(folder)]


def _voc_split(folders: list[Path], wanted: tuple[str, ...]) -> str:
    there = {split for folder in folders for split in voc_splits(folder)}
    for split in wanted:
        if split in there:
            return split
    raise BadData(
        f"{folders[0]}/ImageSets/Main has none of {', '.join(f'{name}.txt' for name in wanted)}, only "
        f"{', '.join(sorted(there))}. Name images to measure on with --eval-data"
    )


def _coco_file(path: Path, splits: tuple[str, ...]) -> Path | None:
    files = {file.relative_to(path).as_posix().lower(): file for file in (*path.glob("*.json"), *path.glob("*/*.json"))}
    for split in splits:
        for pattern in _PATTERNS:
            if found := sorted(file for name, file in files.items() if fnmatchcase(name, pattern.format(split))):
                return _alone(found)
    return None


def _only_file(path: Path) -> Path:
    if found := sorted([*path.glob("*.json"), *path.glob("annotations/*.json")]):
        return _alone(found)
    raise BadData(f"{path} has no annotations. Expected: {LAYOUTS}")


def _alone(found: list[Path]) -> Path:
    if len(found) > 1:
        names = ", ".join(str(file) for file in found[:3])
        raise BadData(f"there are {len(found)} annotation files ({names}). Name two: --data FILE --eval-data FILE")
    return found[0]
