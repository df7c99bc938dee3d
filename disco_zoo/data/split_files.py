"""Finds the files or folders of the train and the test split by their names."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from disco_zoo.data.file_tree import is_folder, listed
from disco_zoo.data.image_files import is_hidden
from disco_zoo.errors import BadData, NoTestImages

# Most wanted first. A split called "test" may come without labels (ImageNet's does): callers look further.
SYNONYMS = {
    "train": ("train", "training"),
    "test": ("test", "testing", "tests", "val", "validation", "valid", "eval", "evaluation", "dev", "holdout"),
}
# As a Hub data set may call its splits; each further word is a request more where there is none.
HUB_SPLITS = {"train": ("train", "training"), "test": ("test", "val", "validation", "valid", "eval", "evaluation")}
# Adjectives and short words that a class of images may be called by.
MAYBE_CLASSES = {"valid", "dev", "eval"}
# The word, not the middle of another: "x_train.parquet" and "cifar10train", but not "strains".
TRAIN_WORD = re.compile(r"(?<![a-z])train(ing)?(?=set|data|image|img|[^a-z]|$)", re.IGNORECASE)
_RANK = {word: (split, rank) for split, synonyms in SYNONYMS.items() for rank, word in enumerate(synonyms)}
_FILLERS = {"set", "sets", "split", "data", "dataset", "images", "image", "imgs", "img", "photos", "pictures"}
_GLUED = re.compile(rf"({'|'.join(_RANK)})({'|'.join(_FILLERS)})")
TEST_ADVICE = "Give some with --eval-data, or make a train/ and a test/ of it."
WRAPPERS = 8  # folders beside each other of which one may hold the splits


def no_test_split(name: str) -> NoTestImages:
    """The error for a source that has training images only."""
    return NoTestImages(f"{name} has no test images. {TEST_ADVICE}")


def words(name: str) -> set[str]:
    """Return the lower-case words of a file name: "data/TrainSet-00001-of-00002.parquet" holds "train"."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    found = set(re.findall(r"[a-z]+", spaced))
    return found | {match[1] for word in found if (match := _GLUED.fullmatch(word))}


def split_word(name: str) -> str | None:
    """The synonym that a folder's whole name is: "Testing", "test_set", "TrainImages", "val2017"; else None."""
    telling = words(name) - _FILLERS
    telling -= {word for word in telling if _GLUED.fullmatch(word)}
    word = telling.pop() if len(telling) == 1 else ""
    return word if word in _RANK else None


def is_called(path: Path, split: str) -> bool:
    """Whether a word for the split is in the name of a file or folder."""
    return bool(words(path.stem) & set(SYNONYMS[split]))


def resolve_path(path: Path, split: str, dedicated: bool) -> Path:
    """Return the first of `resolve_paths`."""
    return resolve_paths(path, split, dedicated)[0]


def resolve_paths(path: Path, split: str, dedicated: bool) -> list[Path]:
    """Return the files or folders of a split, most wanted first: the named one for "train", its siblings for "test".

    One that does not call itself "train" has no sibling; one that calls itself "test" is it.

    Raises:
        BadData: There is no such sibling, and `path` was not named for this split alone.
    """
    if split == "train" or dedicated or is_called(path, "test"):
        return [path]
    found = _siblings(path)
    if not found:
        raise no_test_split(str(path))
    return found


def _siblings(path: Path) -> list[Path]:
    """What is called as `path` is, in any case, with a word for "test" where that says "train"."""
    place = TRAIN_WORD.search(path.name)
    if place is None:
        return []
    before, after = path.name[: place.start()].lower(), path.name[place.end() :].lower()
    found = []
    try:
        entries = [path.parent / entry.name for entry in listed(path.parent)]
    except BadData:  # who may not look beside it has to name the test images
        return []
    for entry in entries:
        name = entry.name.lower()
        word = name[len(before) : len(name) - len(after)]
        if name == f"{before}{word}{after}" and word in SYNONYMS["test"]:
            found.append((SYNONYMS["test"].index(word), entry.name, entry))
    return [entry for _, _, entry in sorted(found)]


def files_by_split(folder: Path, files: list[Path], split: str) -> dict[str, list[Path]]:
    """Group shards by the word for `split` in their path below `folder`, most wanted word first."""
    groups: dict[str, list[Path]] = {}
    for synonym in SYNONYMS[split]:
        named = [file for file in files if synonym in words(str(file.relative_to(folder)))]
        if named:
            groups[synonym] = named
    return groups


def split_folders(folder: Path, split: str) -> list[Path]:
    """Return the subfolders that are called as `split` is, in any case and usual spelling, most wanted first."""
    return [folder / name for name in names_of_split(split, subfolders(folder))]


def subfolder(folder: Path, name: str) -> Path:
    """The folder of this name in any case, exact ones first; where there is none, the path it would have."""
    exact = folder / name
    if exact.is_dir() or not folder.is_dir():
        return exact
    return next((folder / other for other in subfolders(folder) if other.lower() == name.lower()), exact)


def split_folder(folder: Path, word: str) -> Path:
    """The subfolder of this name in any case, else the first that this word alone tells (train_set), else none yet."""
    exact = subfolder(folder, word)
    if exact.is_dir() or not folder.is_dir():
        return exact
    return next((folder / name for name in subfolders(folder) if split_word(name) == word), exact)


def named_for(split: str, names: Iterable[str]) -> list[str]:
    """Those of the names that are words for `split`, most wanted first."""
    found = [(SYNONYMS[split].index(word), name) for name in names if (word := split_word(name)) in SYNONYMS[split]]
    return [name for _, name in sorted(found)]


def names_of_split(split: str, names: Collection[str]) -> list[str]:
    """As `named_for`; where no name is a word for a split, the one pair that such words alone tell apart."""
    if any(named_for(one, names) for one in SYNONYMS):
        return named_for(split, names)
    found = pairs(names)
    if len(found) != 1:
        return []
    ((train, tests),) = found.items()
    return [train] if split == "train" else tests


def pairs(names: Collection[str]) -> dict[str, list[str]]:
    """Names with a word for "train" in them, and those with one for "test" in its place: seg_train and seg_test."""
    by_lower = {name.lower(): name for name in names}
    found = {}
    for name in sorted(names):
        if (place := TRAIN_WORD.search(name)) is None:
            continue
        before, after = name[: place.start()].lower(), name[place.end() :].lower()
        wanted = (f"{before}{word}{after}" for word in SYNONYMS["test"])
        if before + after and (tests := [by_lower[one] for one in wanted if one in by_lower]):
            found[name] = tests
    return found


def folder_of_splits(folder: Path) -> Path:
    """The folder that holds train/ and test/: this one, or the only one in it that does."""
    if any(split_folders(folder, split) for split in SYNONYMS):
        return folder
    inner = [folder / name for name in subfolders(folder)]
    if len(inner) > WRAPPERS:  # of classes: what lies in them is looked at when their images are listed
        return folder
    holders = [child for child in inner if any(split_folders(child, split) for split in SYNONYMS)]
    return holders[0] if len(holders) == 1 and split_folders(holders[0], "train") else folder


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in one that no tool has hidden, sorted.

    Raises:
        BadData, CannotRead: it cannot be listed.
    """
    return [entry.name for entry in listed(folder) if is_folder(entry) and not is_hidden(entry.name)]


def paths_of_split(name: str, paths: Sequence[str], split: str, dedicated: bool) -> tuple[list[int], str]:
    """Which of the images of one file belong to a split, by the folders they lie in.

    Args:
        paths: with slashes, at least one.
        dedicated: the file was named for this split alone.

    Returns:
        Their numbers, and the folder they lie in ("" for the whole file).

    Raises:
        BadData: folders of the other split alone, or a test set among training images.
    """
    top = posixpath.commonpath([posixpath.dirname(path) for path in paths]).split("/")
    shared = next((depth for depth, part in enumerate(top) if split_word(part)), len(top) if top[0] else 0)
    top = top[:shared]
    tops = [parts[shared] if len(parts := path.split("/")) > shared + 1 else "" for path in paths]
    there = {found: names_of_split(found, {*tops} - {""}) for found in SYNONYMS}
    if chosen := there[split]:
        return [number for number, one in enumerate(tops) if one == chosen[0]], "/".join([*top, chosen[0]])
    if split == "test" and there["train"] and not dedicated:
        raise no_test_split(name)
    if split == "train" and there["test"] and not dedicated:
        raise BadData(f"{name} has {there['test'][0]}/ but no train/. Give the training images a folder train/.")
    return list(range(len(paths))), ""


def refuse_test_inside(name: str, folders: Iterable[str]) -> None:
    """Refuse training images among which lies a test set.

    Args:
        folders: that hold the images, as paths below the folder of the split, with slashes.

    Raises:
        BadData: names the test set.
    """
    parts = [tuple(folder.split("/")) for folder in folders if folder]
    _refuse_pairs(name, parts)
    inner = {path[:end] for path in parts for end in range(1, len(path))}  # those that hold folders
    for path in parts:
        for end in range(1, len(path) + 1):
            word = split_word(path[end - 1])
            if word not in SYNONYMS["test"]:
                continue
            here = path[:end]
            beside_train = any(other[: end - 1] == here[:-1] and _is_train(other, end) for other in parts)
            if here in inner or beside_train or word not in MAYBE_CLASSES:
                raise BadData(
                    f"{name}: {'/'.join(here)}/ lies among the training images and is called as a test set is; it "
                    "would be trained on. Put train/ and test/ side by side, or rename the folder if it is a class."
                )


def _refuse_pairs(name: str, parts: Sequence[tuple[str, ...]]) -> None:
    beside: dict[tuple[str, ...], set[str]] = {}
    for path in parts:
        for end in range(len(path)):
            beside.setdefault(path[:end], set()).add(path[end])
    for above, names in beside.items():
        for train, tests in pairs(names).items():
            raise BadData(
                f"{name}: {'/'.join((*above, tests[0]))}/ lies beside {train}/ and is called as its test set is; it "
                f"would be trained on. Give one of them, such as {'/'.join((name, *above, train))}"
            )


def _is_train(path: tuple[str, ...], end: int) -> bool:
    return len(path) >= end and split_word(path[end - 1]) in SYNONYMS["train"]
