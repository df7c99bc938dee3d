"""Sources with a prefix of timm's: hfds/, hfids/, tfds/, wds/ and torch/."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from disco_zoo.core.files import user_path
from disco_zoo.data.dataset import ImageSource, Origin
from disco_zoo.data.file_tree import size_of
from disco_zoo.data.formats.parquet import FINGERPRINT_BYTES
from disco_zoo.data.formats.timm_readers import folders_of_split
from disco_zoo.data.parquet_columns import as_labels, hash_cell, image_columns, label_column, say_other_images
from disco_zoo.data.split_files import (
    HUB_SPLITS,
    SYNONYMS,
    files_by_split,
    no_test_split,
    refuse_test_inside,
    words,
)
from disco_zoo.data.stream_source import HubShards, StreamShards, StreamSource, TarShards, bytes_of_cell
from disco_zoo.errors import BadData, MissingExtra, NoTestImages, own_words, require

IMAGE_FOLDERS = ("image_folder", "folder")  # timm's names of torchvision's ImageFolder
PREFIX_MODULES = {"hfds": "datasets", "hfids": "datasets", "wds": "webdataset", "tfds": "tensorflow_datasets"}


def open_prefixed(name: str, split: str, dedicated: bool) -> ImageSource:
    """Open `hfds/NAME`, `hfids/NAME`, `tfds/NAME`, `wds/FOLDER` or `torch/NAME`, `@FOLDER` being its root.

    Args:
        dedicated: see `open_source`.

    Raises:
        BadData: Not found, or without the split.
        MissingExtra: The backend's package is not installed.
    """
    prefix, _, rest = name.partition("/")
    prefix = prefix.lower()
    module = PREFIX_MODULES.get(prefix)
    if module is not None:
        _require_backend(module)
    rest, _, root = rest.partition("@")
    if prefix == "torch" and not root:
        raise BadData(f"{name} needs the folder that holds it: torch/{rest}@FOLDER.")
    if prefix == "torch" and rest.lower() in IMAGE_FOLDERS:
        return _open_image_folder(name, rest, user_path(root), split, dedicated)
    settings: dict[str, Any] = {"root": str(user_path(root)) if root else None}
    splits: tuple[str, ...] = HUB_SPLITS[split]
    if prefix == "torch":
        splits = ("train",) if split == "train" else ("validation",)
    elif prefix == "wds":
        folder, _, last = rest.rpartition("/")
        if ".tar" in last and split == "test" and not (dedicated or words(last) & set(SYNONYMS["test"])):
            raise no_test_split(name)
        # A pattern of shards, "x-{0000..0003}.tar|4000", takes the place of the split's name.
        settings["root"], splits = (
            (folder, (last,)) if ".tar" in last else (rest, _shard_lists(name, Path(rest), split))
        )
    first_error: Exception | None = None
    for candidate in splits:
        try:
            if prefix == "hfds":
                return HfdsSource(name, split, *_hub_table(rest, candidate, settings["root"]))
            return _wrap(name, split, prefix, _create_prefixed(prefix, rest, candidate, settings))
        except BadData:
            raise
        except Exception as error:  # each backend has its own, down to AssertionError
            first_error = first_error or error
    raise _not_opened(name, prefix, rest, split, first_error) from first_error


def _open_image_folder(name: str, kind: str, root: Path, split: str, dedicated: bool) -> ImageSource:
    """torchvision's ImageFolder of a split's folder, found as that of a plain folder is.

    timm would take the whole folder where it finds none for the split: training images for test images.
    """
    if not root.is_dir():
        raise BadData(f"{name}: there is no folder {root}. Give the folder of the images as torch/{kind}@FOLDER.")
    first_error: Exception | None = None
    for folder in folders_of_split(name, root, split, dedicated)[0]:
        try:
            dataset = _create_prefixed("torch", kind, split, {"root": str(folder), "search_split": False})
        except Exception as error:  # such as a secret test set, without class folders
            first_error = first_error or error
            continue
        if split == "train" and not dedicated:
            refuse_test_inside(name, dataset.classes)
        return TorchvisionSource(name, split, dataset, folder.resolve())
    raise _not_opened(name, "torch", kind, split, first_error) from first_error


def _shard_lists(name: str, folder: Path, split: str) -> tuple[str, ...]:
    """What timm's reader takes for the split's name: the name, or the shards where no info file says which they are."""
    folder = user_path(folder)
    found = sorted(path for path in folder.glob("*.tar")) if folder.is_dir() else []
    if not found or any((folder / info).is_file() for info in ("_info.json", "info.json")):
        return HUB_SPLITS[split]
    groups = files_by_split(folder, found, split)
    if not groups and split == "test":
        raise no_test_split(name)
    held_out = {path for group in files_by_split(folder, found, "test").values() for path in group}
    chosen = next(iter(groups.values()), [path for path in found if path not in held_out])
    return ("::".join(path.name for path in chosen),)


def _create_prefixed(prefix: str, rest: str, split: str, settings: dict[str, Any]) -> Any:
    """Return timm's dataset."""
    from timm.data import create_dataset

    if prefix == "hfids":
        return _create_hub_stream(rest, split, settings)
    if prefix == "wds":
        with _quiet("timm.data.readers.reader_wds"):  # about an info file, which need not be there
            return create_dataset(f"wds/{rest}", split=split, **settings)
    return create_dataset(f"{prefix}/{rest}", split=split, **settings)


def _hub_table(rest: str, split: str, root: str | None) -> tuple[Any, str]:
    """A Hub data set's table and the column of its images, which timm would have to be told."""
    import datasets

    table = datasets.load_dataset(rest, split=split, cache_dir=root)
    schema = table.features.arrow_schema
    column = next((column for column in image_columns(schema) if _is_filled(table.data.column(column))), None)
    if column is None:
        raise ValueError(f"no column of images among: {', '.join(table.column_names)}")
    return table.cast_column(column, datasets.Image(decode=False)), column


def _is_filled(cells: Any) -> bool:
    """Whether a column of bytes, or of structs of bytes and path, has an image at all."""
    arrow = require("pyarrow", "train")
    if not arrow.types.is_struct(cells.type):
        return bool(cells.null_count < len(cells))
    compute = require("pyarrow.compute", "train")
    parts = [cells.type.field(number).name for number in range(cells.type.num_fields)]
    given = [compute.struct_field(cells, part) for part in parts if part in ("bytes", "path")]
    return any(part.null_count < len(part) for part in given)


@contextlib.contextmanager
def _quiet(logger: str) -> Iterator[None]:
    level = logging.getLogger(logger).level
    logging.getLogger(logger).setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.getLogger(logger).setLevel(level)


def _create_hub_stream(rest: str, split: str, settings: dict[str, Any]) -> Any:
    """timm refuses a data set of unknown length; here the recipe may still say it, so it is opened with length 0."""
    from timm.data import create_dataset

    try:
        return create_dataset(f"hfids/{rest}", split=split, **settings)
    except ValueError as error:
        if "length is unknown" not in str(error):
            raise
        dataset = create_dataset(f"hfids/{rest}", split=split, num_samples=1, **settings)
        dataset.reader.num_samples = 0
        return dataset


def _require_backend(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        package = module.replace("_", "-")
        extra = '"disco-zoo[streams]"' if module != "tensorflow_datasets" else package
        raise MissingExtra(f"{package} is not installed. Type: pip install {extra}")


def _not_opened(name: str, prefix: str, rest: str, split: str, error: Exception | None) -> BadData:
    # These readers do not tell a split that is not there from one that is damaged.
    kind = NoTestImages if split == "test" else BadData
    reason = own_words(error)
    if prefix == "torch":
        return kind(
            f"torchvision cannot open the {split} split of {name}: {reason.rstrip('.')}. "
            f"Give the folder that holds it as torch/{rest}@FOLDER; disco-zoo does not download it."
        )
    opener = "datasets" if prefix == "hfds" else "timm"
    return kind(f"{opener} cannot open the {split} split of {name}: {reason}")


def _wrap(name: str, split: str, prefix: str, dataset: Any) -> ImageSource:
    if prefix == "torch":
        return TorchvisionSource(name, split, dataset)
    return StreamSource(name, split, dataset, _shards(name, prefix, dataset))


def _shards(name: str, prefix: str, dataset: Any) -> StreamShards | None:
    """The parts of a stream that can be read again in the same order: files on disk, and the Hub's."""
    reader = getattr(dataset, "reader", None)
    if prefix == "wds" and reader is not None:
        paths = [Path(reader.root) / file for file in reader.split_info.filenames]
        return TarShards(paths) if all(path.is_file() for path in paths) else None
    if prefix == "hfids" and reader is not None:
        return HubShards(name, reader.builder.as_streaming_dataset(split=reader.split))
    return None


class TorchvisionSource(ImageSource):
    """A torchvision dataset opened by timm.

    Args:
        folder: that holds its images and no others; None where it has none.
    """

    def __init__(self, name: str, split: str, dataset: Any, folder: Path | None = None) -> None:
        self._dataset, self._folder = dataset, folder
        self.names_are_declared = folder is None
        targets = getattr(dataset, "targets", None)
        labels = np.asarray(targets, dtype=np.int64) if targets is not None else None
        if labels is not None and labels.ndim > 1:  # QMNIST: the class, then who wrote the digit, and where it lies
            labels = labels[:, 0]
        classes = getattr(dataset, "classes", None)
        names = [c if isinstance(c, str) else c[0] for c in classes] if classes is not None else None
        super().__init__(name, split, labels, names)

    def __len__(self) -> int:
        return len(self._dataset)

    def encoded(self, index: int) -> bytes | Image.Image:
        """Return the file's bytes; without files the image, which torchvision hands out decoded, as RGB."""
        if (file := self._file(index)) is not None:
            return file.read_bytes()
        image: Image.Image = self._dataset[index][0]
        return image

    def _file(self, index: int) -> Path | None:
        files = getattr(self._dataset, "imgs", None) or getattr(self._dataset, "samples", None)
        return Path(files[index][0]) if files and isinstance(files[0][0], str | Path) else None

    def places(self) -> tuple[Path, ...]:
        return () if self._folder is None else (self._folder,)

    def path(self, index: int) -> str:
        """Return the file's path if the dataset has files, else name and row."""
        return str(self._file(index) or f"{self.name} row {index}")

    def _hash_content(self, digest: hashlib._Hash) -> None:
        pixels = getattr(self._dataset, "data", None)
        if pixels is not None:
            digest.update(np.ascontiguousarray(pixels).data)
            return
        for file, _ in getattr(self._dataset, "imgs", None) or ():
            digest.update(f"{Path(file).parent.name}/{Path(file).name}\0{size_of(Path(file))}\n".encode())


class HfdsSource(ImageSource):
    """A map-style Hugging Face dataset opened by timm: an arrow table that is mapped from disk."""

    def __init__(self, name: str, split: str, table: Any, column: str) -> None:
        self._table, self._column = table, column
        data = table.data
        label = label_column(data.schema)
        labels, names = as_labels(data.column(label)) if label is not None else (None, None)
        self.names_are_declared = names is None
        names = names or getattr(self._table.features.get(label), "names", None)
        super().__init__(name, split, labels, names)
        labels_from = f"the column {label}" if self.labels is not None else ""
        self.origin = Origin(labels=labels_from, notes=say_other_images(data.schema, column, name))

    def __len__(self) -> int:
        return len(self._table)

    def encoded(self, index: int) -> bytes:
        """Return the image file's bytes."""
        return bytes_of_cell(self._cell(index))

    def _cell(self, index: int) -> dict[str, Any]:
        return self._table[index][self._column] or {}

    def path(self, index: int) -> str:
        """Return the stored path and the row."""
        return f"{self._cell(index).get('path') or ''} row {index} of {self.name}".lstrip()

    def _hash_content(self, digest: hashlib._Hash) -> None:
        images = self._table.data.column(self._column)
        for index in range(0, len(self), max(1, -(-images.nbytes // FINGERPRINT_BYTES))):
            cell = images[index]
            hash_cell(digest, cell["bytes"], Path(cell["path"].as_py() or "").name)
