"""Image sources: where training and evaluation get (image, index, label or None) from.

`open_source` is the one entry. What it returns is map-style, holds no decoded image, and can be pickled
or forked into data loader workers. Nobody may assume that rows come shuffled: many files are sorted by label.
"""

from __future__ import annotations

import functools
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from disco_zoo.errors import BadData, UnreadableImage, did_you_mean
from disco_zoo.label_array import Labels
from disco_zoo.source_image import SourceImage

Used = TypeVar("Used")

SAMPLE_PATH = Path(__file__).parent / "assets" / "fashion_mnist_sample.parquet"
SPLITS = ("train", "test")
# Prefixes that timm.data.create_dataset understands; everything else is a path.
TIMM_PREFIXES = ("hfds", "hfids", "tfds", "wds", "torch")
MAX_CONSECUTIVE_UNREADABLE = 100


class ImageSource(ABC):
    """A set of images by index, with labels when they are known.

    Attributes:
        name: What the user typed as `--data`.
        split: "train" or "test".
        class_names: Name of each label, or None when unknown.
        labels: One integer per image, or None when unknown. Training never needs them.
        has_index: False for streams, which cannot fetch an image by its number.
    """

    has_index: bool = True

    def __init__(
        self,
        name: str,
        split: str,
        labels: Sequence[int] | NDArray[Any] | None = None,
        class_names: list[str] | None = None,
    ) -> None:
        self.name = name
        self.split = split
        array = None if labels is None else Labels(labels)
        # Benchmarks mark the rows of a secret test set by -1: those are no labels.
        self.labels: Labels | None = array if array is not None and array.largest >= 0 else None
        self.class_names = class_names if self.labels is not None else None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def encoded(self, index: int) -> bytes | Image.Image:
        """Return the file bytes of one image, or the image where the backend only has decoded ones."""

    @abstractmethod
    def path(self, index: int) -> str:
        """Return a name by which a user finds the image."""

    @abstractmethod
    def _hash_content(self, digest: hashlib._Hash) -> None:
        """Feed the digest with what tells these images from others, but not with where they lie."""

    def opened(self, index: int) -> SourceImage:
        """Open one image without decoding it; `rgb` of it does, and raises what `image` raises.

        Raises:
            UnreadableImage: The bytes are missing or are no image.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is outside 0..{len(self) - 1} of {self.name}")
        try:
            return SourceImage(self.encoded(index), functools.partial(self._unreadable, index))
        except BadData:
            raise
        except Exception as error:  # decoders of damaged bytes raise nearly anything
            raise self._unreadable(index, error) from error

    def image(self, index: int) -> Image.Image:
        """Decode one image as RGB, in the orientation of its pixels (EXIF is not applied, as in timm).

        Raises:
            UnreadableImage: The bytes are missing or are no whole image.
        """
        return self.opened(index).rgb()

    def _unreadable(self, index: int, error: Exception) -> UnreadableImage:
        # Pillow's own words for unknown bytes hold a memory address.
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else str(error)
        return UnreadableImage(index, self.path(index), (reason.splitlines() or [type(error).__name__])[0])

    def __getitem__(self, index: int) -> tuple[Image.Image, int, int | None]:
        return self.image(index), index, self.labels[index] if self.labels is not None else None

    def fingerprint(self) -> str:
        """Return a sha256 (64 hex digits) of number, labels and content, the same wherever the data lies.

        It is of the images as they are when it is first asked for: to read gigabytes once is enough for a run.
        """
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(f"{len(self)} images".encode())
        if self.labels is not None:
            for chunk in self.labels.chunks():
                digest.update(chunk)
        self._hash_content(digest)
        return digest.hexdigest()

    def __repr__(self) -> str:
        labels = "no labels" if self.labels is None else f"{len(set(self.labels))} classes"
        return f"{type(self).__name__}({self.name!r}, split={self.split!r}, {len(self)} images, {labels})"


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
        BadData: Missing, empty, damaged, or without the split.
    """
    if split not in SPLITS:
        raise BadData(f"there is no split '{split}'. Choose one of: {', '.join(SPLITS)}.")
    name, path = str(data), Path(data).expanduser()
    if name == "sample":
        from disco_zoo.parquet_source import ParquetSource

        return ParquetSource(name, split, [SAMPLE_PATH])
    prefix = name.partition("/")[0].lower()
    if not path.exists() and prefix in TIMM_PREFIXES and "/" in name:
        from disco_zoo.timm_prefixed import open_prefixed

        return open_prefixed(name, split)
    if not path.exists():
        raise BadData(_nothing_there(name, path))
    from disco_zoo.shard_index import find_index
    from disco_zoo.split_files import find_parquet_files, resolve_path

    if path.is_dir() and find_index(path) is not None:
        from disco_zoo.shard_source import open_shards

        return open_shards(name, path, split, dedicated)
    if path.suffix.lower() == ".parquet" or (path.is_dir() and find_parquet_files(path)):
        from disco_zoo.parquet_source import open_parquet

        return open_parquet(name, path, split, dedicated)
    from disco_zoo.timm_source import open_folder, open_tar

    if path.is_dir():
        return open_folder(name, path, split, dedicated)
    if path.suffix.lower() == ".tar":
        return open_tar(name, resolve_path(path, split, dedicated), split)
    raise BadData(f"{name} is neither a folder, a .tar nor a .parquet. Unpack or repack it.")


def _nothing_there(name: str, path: Path) -> str:
    parent = path.parent
    siblings = sorted(entry.name for entry in parent.iterdir()) if parent.is_dir() else []
    if parent == Path():
        siblings.append("sample")
    hint = did_you_mean(path.name, siblings)
    if hint:
        return f"there is no data at {name}.{hint}"
    return f"there is no data at {name}. Give a folder of images, a .parquet, a .tar, hfds/NAME, or sample."


def load_or_replace(source: ImageSource, index: int) -> tuple[Image.Image, int, UnreadableImage | None]:
    """Load an image or, if it is unreadable, the next readable one: see `use_or_replace`.

    Returns:
        The RGB image, the index it really has, and the error of `index` (None when it was readable).
    """
    return use_or_replace(source, index, lambda image, _: image.rgb())


def use_or_replace(
    source: ImageSource, index: int, use: Callable[[SourceImage, int], Used]
) -> tuple[Used, int, UnreadableImage | None]:
    """Make something of an image or, if it is unreadable, of the next readable one, so that batches keep their size.

    The replacement depends on nothing but the source and the index.

    Args:
        use: is given the opened image and its index, and decodes it.

    Returns:
        What `use` made, the index of its image, and the error of `index` (None when it was readable).

    Raises:
        BadData: No readable image among the next `MAX_CONSECUTIVE_UNREADABLE`.
    """
    first_error: UnreadableImage | None = None
    tries = min(len(source), MAX_CONSECUTIVE_UNREADABLE)
    for step in range(tries):
        candidate = (index + step) % len(source)
        try:
            return use(source.opened(candidate), candidate), candidate, first_error
        except UnreadableImage as error:
            first_error = first_error or error
    raise BadData(f"{tries} images in a row are unreadable in {source.name}. First: {first_error}")


class UnreadableTally:
    """Counts the unreadable images of a run, each once, and stops the run above a limit.

    Attributes:
        limit: Largest number of unreadable images that is tolerated.
        messages: What was wrong, by index.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.messages: dict[int, str] = {}

    def add(self, index: int, message: str) -> bool:
        """Record one unreadable image; return whether it is new."""
        is_new = index not in self.messages
        self.messages.setdefault(index, message)
        return is_new

    def write(self, path: Path) -> None:
        """Write the list, one line per image, ordered by index."""
        path.write_text("".join(f"{self.messages[index]}\n" for index in sorted(self.messages)), "utf-8")

    def check(self, list_path: Path | None = None) -> None:
        """Stop above the limit.

        Raises:
            BadData: More than `limit` images are unreadable; the list is at `list_path` if given.
        """
        if len(self.messages) <= self.limit:
            return
        if list_path is not None:
            self.write(list_path)
        where = f"The list is in {list_path}. " if list_path is not None else ""
        first = self.messages[min(self.messages)]
        raise BadData(
            f"{len(self.messages)} images are unreadable, {self.limit} are tolerated. {where}"
            f"Repair or remove them. First: {first}"
        )


def require_index(source: ImageSource, who: str) -> None:
    """Refuse a stream where images must be fetched by their number.

    Raises:
        BadData: `source` has no index.
    """
    if not source.has_index:
        raise BadData(
            f"{who} needs a source with an index, and {source.name} is a stream. Pack it to parquet, or use a source "
            f"with an index. Type: disco-zoo data pack {source.name} --out FOLDER, or, for .tar shards: "
            "disco-zoo data index FOLDER"
        )


def require_labels(source: ImageSource, who: str) -> Labels:
    """Return the labels of a source.

    Raises:
        BadData: The source has none.
    """
    if source.labels is None:
        raise BadData(
            f"{who} needs labels, and {source.name} has none for its {split_words(source.split)}: photos without class "
            "folders, or all in one, have no labels. Give two or more folders of classes, or a parquet with a label "
            f"column, as {'--eval-data' if source.split == 'test' else '--data'}."
        )
    return source.labels


def require_same_classes(train: ImageSource, test: ImageSource) -> None:
    """Refuse a train and a test set whose labels mean different things.

    Raises:
        BadData: Both have class names, and they differ.
    """
    if train.class_names is None or test.class_names is None or train.class_names == test.class_names:
        return
    odd: Iterable[str] = sorted(set(train.class_names) ^ set(test.class_names)) or ["their order"]
    raise BadData(
        f"the classes of {train.name} (train) and {test.name} (test) differ: {', '.join(list(odd)[:5])}. "
        "Give both the same class folders or names."
    )


def split_words(split: str) -> str:
    """Return "training images" or "test images"."""
    return "training images" if split == "train" else "test images"
