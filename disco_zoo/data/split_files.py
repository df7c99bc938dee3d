"""Which files or folders hold the train or the test images: decided by the names people give them."""

from __future__ import annotations

import re
from pathlib import Path

from disco_zoo.errors import NoTestImages

# Most wanted first. A split called "test" may come without labels (ImageNet's does): callers look further.
SYNONYMS = {
    "train": ("train", "training"),
    "test": ("test", "val", "validation", "valid", "eval", "evaluation"),
}
# The word, not the middle of another: "x_train.parquet" and "cifar10train", but not "strains".
TRAIN_WORD = re.compile(r"(?<![a-z])train(ing)?(?![a-z])", re.IGNORECASE)


def no_test_split(name: str) -> NoTestImages:
    """The error for a source that has training images only."""
    return NoTestImages(f"{name} has no test images. Give some with --eval-data.")


def words(name: str) -> set[str]:
    """Return the lower-case words of a file name: "data/train-00001-of-00002.parquet" holds "train"."""
    return set(re.findall(r"[a-z]+", name.lower()))


def resolve_path(path: Path, split: str, dedicated: bool) -> Path:
    """Return the first of `resolve_paths`."""
    return resolve_paths(path, split, dedicated)[0]


def resolve_paths(path: Path, split: str, dedicated: bool) -> list[Path]:
    """Return the files or folders of a split, most wanted first: the named one for "train", its siblings for "test".

    One that does not call itself "train" has no sibling; one that calls itself "test" is it.

    Raises:
        BadData: There is no such sibling, and `path` was not named for this split alone.
    """
    if split == "train" or dedicated or words(path.stem) & set(SYNONYMS["test"]):
        return [path]
    siblings = [path.with_name(TRAIN_WORD.sub(synonym, path.name)) for synonym in SYNONYMS["test"]]
    found = [sibling for sibling in siblings if sibling != path and sibling.exists()]
    if not found:
        raise no_test_split(str(path))
    return found


def find_parquet_files(folder: Path) -> list[Path]:
    """Return the parquet files of a folder, of its data/ (Hugging Face layout) or its subfolders, sorted."""
    for pattern in ("*.parquet", "data/*.parquet", "*/*.parquet"):
        found = sorted(path for path in folder.glob(pattern) if path.is_file())
        if found:
            return found
    return []


def files_by_split(folder: Path, files: list[Path], split: str) -> dict[str, list[Path]]:
    """Group shards by the word for `split` in their path below `folder`, most wanted word first."""
    groups: dict[str, list[Path]] = {}
    for synonym in SYNONYMS[split]:
        named = [file for file in files if synonym in words(str(file.relative_to(folder)))]
        if named:
            groups[synonym] = named
    return groups


def split_folders(folder: Path, split: str) -> list[Path]:
    """Return the subfolders whose name is a word for `split`, most wanted first."""
    return [folder / synonym for synonym in SYNONYMS[split] if (folder / synonym).is_dir()]


# timm reads png and jpg unless told more.
