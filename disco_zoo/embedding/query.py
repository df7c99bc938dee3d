"""Queries of a search: image files, names of rows in the embedding, or another embedding by the same model."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from disco_zoo.core.files import user_path
from disco_zoo.data.dataset import ImageSource
from disco_zoo.data.formats.timm_readers import FolderSource
from disco_zoo.data.image_files import path_of_text
from disco_zoo.data.image_list import FileListSource, open_images, reopen_images
from disco_zoo.data.pixels.bit_depth import ValueRanges
from disco_zoo.embedding.batches import embedded_batches
from disco_zoo.embedding.embedding_file import SUFFIXES, EmbeddingFile
from disco_zoo.errors import BadData, DiscoZooError, did_you_mean, shown
from disco_zoo.evaluation.subject import fit_to
from disco_zoo.models.encoder import backbone_fingerprint
from disco_zoo.models.engine import EngineName, forward_by
from disco_zoo.models.load import NamedModel, load_model

QUERY_BATCH = 32
MAX_QUERIES = 1000
NAMES_TO_COMPARE = 20_000  # a hint at the nearest name among more would take longer than the search
MUST_AGREE = ("weights_sha256", "image_size", "resize_size", "mean", "std")


@dataclass(frozen=True)
class Query:
    """One query.

    Attributes:
        title: as people know it.
        vector: float32 (D,).
        own_row: its row in the embedding, where it is one.
        picture: opens its picture.
    """

    title: str
    vector: np.ndarray
    own_row: int | None
    picture: Callable[[], Image.Image]


class Pictures:
    """The pictures of an embedding's rows, opened when the first is asked for.

    Args:
        data: where they are now; None for where they were.
    """

    def __init__(self, file: EmbeddingFile, data: str | None = None) -> None:
        self.file, self.data = file, data

    @cached_property
    def _opened(self) -> tuple[ImageSource, bool]:
        """The images, and whether their numbers are those of the rows instead of those in the embedded source."""
        facts = self.file.facts
        if self.data is None:
            source = reopen_images(facts.data, facts.split, self.file.names)
        else:
            source = open_images([self.data], facts.split)
        if isinstance(source, FolderSource):
            return self._moved(source) if facts.data is None else self._by_name(source), True
        by_row = self.data is None and facts.data is None
        if not by_row and len(source) != facts.num_images:
            raise BadData(
                f"{source.name} has {len(source)} images, and {self.file.path} was made of {facts.num_images}: "
                "they are not the same. Embed again, or give --images DATA"
            )
        return source, by_row

    def _moved(self, source: FolderSource) -> FileListSource:
        """The rows' own files, which came from a list of paths: by their names, wherever they are below the folder."""
        below: dict[str, list[Path]] = {}
        for index in range(len(source)):
            path = Path(source.path(index))
            below.setdefault(path.name, []).append(path)
        files = {name: _with_most_of(path_of_text(name), below) for name in self.file.names}
        times = Counter(files.values())
        lost = [name for name, file in files.items() if file is None or times[file] > 1]
        if lost:
            raise BadData(
                f"{len(lost)} of the {len(files)} images of {self.file.path} are not below {source.name}, or not by "
                f"one name each, such as '{shown(lost[0])}'. Say where they are: --images DATA"
            )
        return FileListSource(source.name, [file for name in self.file.names if (file := files[name])])

    def _by_name(self, source: FolderSource) -> FileListSource:
        """The rows' own files: images that came or went meanwhile have shifted the numbers."""
        files = [path_of_text(str(source.folder / name)) for name in self.file.names]
        if not any(file.is_file() for file in files):
            raise BadData(
                f"none of the images of {self.file.path} is in {source.name}, such as "
                f"'{shown(self.file.names[0])}'. Say where they are: --images DATA"
            )
        return FileListSource(source.name, files)

    def check(self) -> None:
        """Find images that cannot be shown before the search.

        Raises:
            BadData: they are not there, or are others.
        """
        _ = self._opened

    def open(self, row: int) -> Image.Image:
        """The picture of row number `row`.

        Raises:
            UnreadableImage: it is gone or damaged.
        """
        source, by_row = self._opened
        return source.image(row if by_row else int(self.file.indices[row]))


def _with_most_of(path: Path, below: Mapping[str, Sequence[Path]]) -> Path | None:
    """Of the files with this path's name, that with most of its folders; None without one, or with several equal."""
    shared = {file: _shared_folders(path, file) for file in below.get(path.name, ())}
    most = max(shared.values(), default=0)
    best = [file for file, folders in shared.items() if folders == most]
    return best[0] if len(best) == 1 else None


def _shared_folders(path: Path, other: Path) -> int:
    pairs = zip(reversed(path.parent.parts), reversed(other.parent.parts), strict=False)
    return len([*itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)])


def resolve_queries(
    texts: Sequence[str],
    file: EmbeddingFile,
    *,
    pictures: Pictures,
    model: str | None = None,
    device: str = "cpu",
    engine: EngineName = "torch",
) -> list[Query]:
    """Turn what a user typed into vectors that can be compared with the file's, in the same order.

    A text is an embedding, else the name of a row, else an image file, a folder, or another source of images.

    Args:
        pictures: of the file's rows.
        model: embeds images; None for the one that the file names.
        engine: what computes their features, see `forward_by`.

    Raises:
        BadData: nothing of this name, too many, or an unreadable image.
        DiscoZooError: other weights or settings than the file's.
    """
    asked: list[EmbeddingFile | int | ImageSource] = [_meaning(text, file) for text in texts]
    number = sum(1 if isinstance(meaning, int) else len(meaning) for meaning in asked)
    if number > MAX_QUERIES:
        raise BadData(f"{number} queries are too many to look at. Search for at most {MAX_QUERIES} at once")
    needs_model = any(isinstance(meaning, ImageSource) for meaning in asked)
    named = matching_model(file, model) if needs_model else None
    queries: list[Query] = []
    for text, meaning in zip(texts, asked, strict=True):
        if isinstance(meaning, int):
            queries.append(Query(text, file.rows([meaning])[0], meaning, partial(pictures.open, meaning)))
        elif isinstance(meaning, EmbeddingFile):
            queries += _of_embedding(meaning, file)
        elif named is not None:
            queries += _of_images(meaning, file, named, device, engine)
    return queries


def matching_model(file: EmbeddingFile, model: str | None = None) -> NamedModel:
    """Load the model that made the file, or `model` if its weights are the same.

    Raises:
        DiscoZooError: they are not.
    """
    facts = file.facts
    named = load_model(model or facts.model)
    found = backbone_fingerprint(named.backbone)
    if found != facts.weights_sha256:
        raise DiscoZooError(
            f"{file.path} was embedded by {facts.model} with weights {facts.weights_sha256[:8]}, and {named.name} "
            f"now has {found[:8]}: their features cannot be compared. Give that model as --model, or embed again"
        )
    fit_to(named.backbone, facts.image_size, named.name)
    return named


def _meaning(text: str, file: EmbeddingFile) -> EmbeddingFile | int | ImageSource:
    path = user_path(text)
    if path.is_file() and _is_embedding(path):
        return _checked(EmbeddingFile(path), file)
    if text in file.row_of_name:
        return file.row_of_name[text]
    try:
        return open_images([text])
    except BadData:
        if path.exists():
            raise
    hint = did_you_mean(text, file.names[:NAMES_TO_COMPARE]) or f" Names there are like '{shown(file.names[0])}'."
    raise BadData(f"{shown(text)} is no file and no name in {file.path}.{hint}")


def _is_embedding(path: Path) -> bool:
    """A `.npy`, or a `.parquet` without a column of images."""
    if path.suffix.lower() not in SUFFIXES:
        return False
    try:
        open_images([str(path)])
    except BadData:
        return True
    return False


def _checked(asked: EmbeddingFile, file: EmbeddingFile) -> EmbeddingFile:
    for name in MUST_AGREE:
        theirs, ours = getattr(asked.facts, name), getattr(file.facts, name)
        if theirs != ours:
            raise DiscoZooError(
                f"{asked.path} has {name} {shown(str(theirs))} and {file.path} {shown(str(ours))}: their features "
                f"cannot be compared. Embed both by the same model"
            )
    return asked


def _of_embedding(asked: EmbeddingFile, file: EmbeddingFile) -> Iterator[Query]:
    itself, pictures = asked.path.samefile(file.path), Pictures(asked)
    for row, (name, vector) in enumerate(zip(asked.names, asked.rows(range(len(asked))), strict=True)):
        yield Query(name, vector, row if itself else None, partial(pictures.open, row))


def _of_images(
    source: ImageSource, file: EmbeddingFile, named: NamedModel, device: str, engine: EngineName
) -> Iterator[Query]:
    if file.facts.white:  # a query alone may be dark
        source.take_ranges(ValueRanges(file.facts.white))
    numbers = range(len(source))
    batches = [numbers[first : first + QUERY_BATCH] for first in range(0, len(source), QUERY_BATCH)]
    size = file.facts.image_size
    forward = forward_by(named.backbone, size, engine=engine, num_images=len(source), device=device)
    for batch in embedded_batches(named, source, file.facts, batches, device=device, forward=forward):
        for message in batch.unreadable.values():
            raise BadData(f"{message}. Leave it out of the queries")
        for row, index in zip(batch.rows.to(torch.float32).numpy(), batch.indices, strict=True):
            yield Query(Path(source.path(index)).name, row, None, partial(source.image, index))
