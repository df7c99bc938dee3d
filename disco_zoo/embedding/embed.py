"""Features of images by a model, both by name: in memory, or as a file to search and map."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from disco_zoo.core.console import StepProgress
from disco_zoo.core.files import user_path
from disco_zoo.core.launcher import chosen_device, default_workers
from disco_zoo.data.dataset import ImageSource
from disco_zoo.data.image_list import data_of, open_images
from disco_zoo.data.summary import tell
from disco_zoo.embedding.embedding_file import EmbeddingFile, check_suffix
from disco_zoo.embedding.facts import facts_of
from disco_zoo.embedding.job import EmbedJob
from disco_zoo.errors import BadData, require
from disco_zoo.evaluation.features import Features
from disco_zoo.evaluation.features import extract_features as features_of
from disco_zoo.evaluation.subject import fit_to
from disco_zoo.models.engine import EngineName
from disco_zoo.models.load import NamedModel, load_model
from disco_zoo.networks.input_size import require_memory


def extract_features(
    model: NamedModel | str,
    images: ImageSource | str | Sequence[str],
    *,
    split: str | None = None,
    image_size: int | None = None,
    batch_size: int = 128,
    device: str = "auto",
    workers: int | None = None,
    engine: EngineName = "torch",
) -> Features:
    """Features float32 (N, D) of images by a frozen backbone, with their labels where the images have some.

    Args:
        model: what `load_model` gives, or a name for it.
        images: a folder, image files, a .txt with a path a line, a .parquet, a .tar, hfds/NAME or "sample".
        split: "train" or "test" of images that have both.
        image_size: side of the centre crop in pixels; None for the model's.
        engine: "torch", "onnxruntime", "openvino", or "auto", the fastest that agrees with PyTorch; see `forward_by`.

    Raises:
        UnknownName, WeightsError: the model cannot be had.
        BadData: the images cannot be read, or too many of them.
    """
    named = load_model(model) if isinstance(model, str) else model
    source = images if isinstance(images, ImageSource) else open_images(_listed(images), split)
    size, resize = (named.image_size, named.resize_size) if image_size is None else (image_size, None)
    fit_to(named.backbone, size, named.name)
    with StepProgress(f"features by {named.name}", len(source)) as progress:
        return features_of(
            named.backbone,
            source,
            image_size=size,
            resize_size=resize,
            mean=named.mean,
            std=named.std,
            batch_size=batch_size,
            device=chosen_device(device),
            workers=default_workers() if workers is None else workers,
            progress=progress.update,
            engine=engine,
        )


def embed(
    images: str | Sequence[str],
    model: NamedModel | str,
    out: Path | str,
    *,
    split: str | None = None,
    normalise: bool = False,
    half: bool = False,
    image_size: int | None = None,
    resize_size: int | None = None,
    full_decode: bool = False,
    batch_size: int = 128,
    max_unreadable: int | None = None,
    device: str = "auto",
    workers: int | None = None,
    engine: EngineName = "auto",
    resume: bool = False,
    write_over: bool = False,
) -> EmbeddingFile:
    """Write the features of images into a file, row by row in their order, with the names of the images.

    Args:
        images, model, split: see `extract_features`.
        out: FILE.parquet, or FILE.npy for the vectors alone with a .json beside them.
        normalise: make every vector of length 1.
        half: store float16.
        image_size, resize_size: crop and shorter side before it, in pixels; None for the model's.
        engine: see `extract_features`.
        full_decode: decode JPEGs of more than 2 x 2.7 times `resize_size` whole, too, not at reduced size; features
            then are those of `extract_features` to the bit, and otherwise to a cosine of 0.9999 (docs/speed.md).
        max_unreadable: stop above so many; None for 1 in 100, at least 10.
        resume: go on where the same call stopped; a finished file is left as it is.

    Raises:
        BadData, BadRunFolder, CannotWrite, Interrupted: see `EmbedJob.run`.
    """
    job = embed_job(
        _listed(images),
        model,
        user_path(out),
        split=split,
        normalise=normalise,
        half=half,
        image_size=image_size,
        resize_size=resize_size,
        full_decode=full_decode,
        batch_size=batch_size,
        max_unreadable=max_unreadable,
        device=device,
        workers=workers,
        engine=engine,
    )
    job.run(resume=resume, replace=write_over)
    return EmbeddingFile(job.out)


def embed_job(
    images: Sequence[str],
    model: NamedModel | str,
    out: Path,
    *,
    split: str | None,
    normalise: bool,
    half: bool,
    image_size: int | None,
    resize_size: int | None,
    full_decode: bool = False,
    batch_size: int,
    max_unreadable: int | None,
    device: str,
    workers: int | None,
    engine: EngineName = "auto",
    shard: tuple[int, int] | None = None,
) -> EmbedJob:
    """The job of `embed`; all that can be wrong with what was asked for is found here."""
    check_suffix(out)
    if out.suffix.lower() == ".parquet":
        require("pyarrow", "train")
    source = open_images(images, split)
    tell(source)
    named = load_model(model) if isinstance(model, str) else model
    facts = facts_of(
        named,
        source,
        data=data_of(images, source),
        split=split,
        normalised=normalise,
        half=half,
        image_size=image_size,
        resize_size=resize_size,
        full_decode=full_decode,
    )
    if facts.resize_size < facts.image_size:
        raise BadData(f"--resize-size {facts.resize_size} is smaller than the crop of {facts.image_size} pixels")
    fit_to(named.backbone, facts.image_size, named.name)  # the fingerprint is of the weights as they came
    if (device := chosen_device(device)) == "cpu":
        require_memory(named.backbone, facts.image_size, named.name, "--image-size ", min(batch_size, len(source)))
    workers = default_workers() if workers is None else workers
    return EmbedJob(
        named,
        source,
        facts,
        out,
        batch_size=batch_size,
        device=device,
        workers=workers,
        limit=max_unreadable,
        engine=engine,
        shard=shard,
    )


def _listed(images: str | Sequence[str]) -> Sequence[str]:
    return [images] if isinstance(images, str) else images
