"""Where images come from by what a user types: a file, a folder, a tar, shards, a name with a prefix of timm's."""

from __future__ import annotations

from pathlib import Path

from disco_zoo.core.files import PACKAGE_DIR, user_path
from disco_zoo.data.dataset import ImageSource
from disco_zoo.errors import BadData, did_you_mean

SAMPLE_PATH = PACKAGE_DIR / "assets" / "fashion_mnist_sample.parquet"


SPLITS = ("train", "test")


# Prefixes that timm.data.create_dataset understands; everything else is a path.
TIMM_PREFIXES = ("hfds", "hfids", "tfds", "wds", "torch")


def open_source(data: str | Path, split: str = "train", *, dedicated: bool = False) -> ImageSource:
    """Open a source of images.

    Args:
        data: "sample" (the embedded Fashion-MNIST sample), a parquet file or a folder of parquet shards, a
            folder of images or of indexed .tar shards, a .tar, or a name with a prefix of timm's (hfds/, torch/,
            ...; docs/data.md).
        split: "train" or "test".
        dedicated: The user named `data` for this split alone (`--eval-data`), so a source that has no splits
            is used whole. Otherwise "test" of such a source is refused: it would be the training images.

    Raises:
        BadData: Missing, empty, damaged, without the split, or of values of which nobody knows what is white.
    """
    if split not in SPLITS:
        raise BadData(f"there is no split '{split}'. Choose one of: {', '.join(SPLITS)}.")
    source = _open(data, split, dedicated)
    if source.survey.spans:  # what is white is decided before any work, or refused
        source.white()
    return source


def _open(data: str | Path, split: str, dedicated: bool) -> ImageSource:
    name, path = str(data), user_path(data)
    if name == "sample":
        from disco_zoo.data.formats.parquet import ParquetSource

        return ParquetSource(name, split, [SAMPLE_PATH])
    prefix = name.partition("/")[0].lower()
    if not path.exists() and prefix in TIMM_PREFIXES and "/" in name:
        from disco_zoo.data.formats.timm_prefixed import open_prefixed

        return open_prefixed(name, split, dedicated)
    if not path.exists():
        raise BadData(_nothing_there(name, path))
    if path.is_dir():
        return _open_folder(name, path, split, dedicated)
    if path.suffix.lower() == ".parquet":
        from disco_zoo.data.formats.parquet import open_parquet

        return open_parquet(name, path, split, dedicated)
    if path.suffix.lower() == ".tar":
        from disco_zoo.data.formats.timm_readers import open_tar

        return open_tar(name, path, split, dedicated)
    raise BadData(f"{name} is neither a folder, a .tar nor a .parquet. Unpack or repack it.")


def _open_folder(name: str, path: Path, split: str, dedicated: bool) -> ImageSource:
    from disco_zoo.data.formats.parquet_files import find_tables
    from disco_zoo.data.webdataset.index import find_index

    if find_index(path) is not None:
        from disco_zoo.data.webdataset.source import open_shards

        return open_shards(name, path, split, dedicated)
    tables, passed = find_tables(path)
    if tables:
        from disco_zoo.data.formats.parquet import open_tables

        return open_tables(name, path, tables, passed, split, dedicated)
    from disco_zoo.data.formats.timm_readers import open_folder

    return open_folder(name, path, split, dedicated)


def require_there(data: str) -> None:
    """Refuse a path of nothing before anything is opened, in the words of `open_source`.

    Raises:
        BadData: there is neither a file nor a folder, and it is no name of another kind.
    """
    named = data == "sample" or (data.partition("/")[0].lower() in TIMM_PREFIXES and "/" in data)
    path = user_path(data)
    if not named and not path.exists():
        raise BadData(_nothing_there(data, path))


def _nothing_there(name: str, path: Path) -> str:
    parent = path.parent
    siblings = sorted(entry.name for entry in parent.iterdir()) if parent.is_dir() else []
    if parent == Path():
        siblings.append("sample")
    hint = did_you_mean(path.name, siblings)
    if hint:
        return f"there is no data at {name}.{hint}"
    return f"there is no data at {name}. Give a folder of images, a .parquet, a .tar, hfds/NAME, or sample."
