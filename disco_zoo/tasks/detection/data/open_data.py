"""Opens annotated training and test images from --data."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from disco_zoo.data.image_list import ranges_of_files
from disco_zoo.errors import BadData
from disco_zoo.tasks.detection.data.annotations import AnnotatedSet, check_files, check_pair, mended, sized
from disco_zoo.tasks.detection.data.coco_format import read_coco
from disco_zoo.tasks.detection.data.hold_out import held_out
from disco_zoo.tasks.detection.data.voc_format import read_voc, voc_splits, without_lists
from disco_zoo.tasks.listed_look import Listed, looks_of

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
    path = Path(data).expanduser()
    if not path.exists():
        raise BadData(f"there is no data at {data}. Type: --data FOLDER, with {LAYOUTS}")
    train = mended(sized(_train(path)))
    test = _named_test(Path(eval_data).expanduser(), train) if eval_data else _test(path, train)
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


def _train(path: Path) -> AnnotatedSet:
    if path.is_file():
        return read_coco(path)
    if folders := _voc_folders(path):
        split = _voc_split(folders, VOC_TRAIN)
        return read_voc([folder for folder in folders if split in voc_splits(folder)], split)
    if file := _coco_file(path, TRAIN_NAMES):
        return read_coco(file)
    if without_lists(path):
        return read_voc([path], None)
    return read_coco(_only_file(path))


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
    if path.is_file():
        return read_coco(path, train.class_names)
    if folders := _voc_folders(path):
        split = _voc_split(folders, (*VOC_TEST, *VOC_TRAIN))
        return read_voc([folder for folder in folders if split in voc_splits(folder)], split, train.class_names)
    if file := _coco_file(path, (*TEST_NAMES, *TRAIN_NAMES)):
        return read_coco(file, train.class_names)
    if without_lists(path):
        return read_voc([path], None, train.class_names)
    return read_coco(_only_file(path), train.class_names)


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
