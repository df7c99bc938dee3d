"""Loads a backbone by the name that a user types; every command that uses a model calls it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from torch import nn

from disco_zoo.core.files import user_path
from disco_zoo.core.random_streams import drawing_from
from disco_zoo.errors import BadTeacher, DiscoZooError, UnknownName, did_you_mean
from disco_zoo.models.classifier_dir import backbone_of, find_backbone_folder, find_classifier_folder
from disco_zoo.models.encoder import feature_dim_of
from disco_zoo.models.teacher_source import LoadedTeacher, load_teacher_source
from disco_zoo.models.timm_network import HUB_PREFIX, create_by_timm
from disco_zoo.zoo.catalog import load_catalog

FILE_SUFFIXES = {".pth", ".tar", ".pt", ".safetensors"}
FOLDER_PREFIX = "local-dir:"


@dataclass(frozen=True)
class NamedModel:
    """A headless backbone and how it wants its input.

    Attributes:
        name: what the user typed.
        network: the timm name that builds the same network without weights.
        backbone: maps normalised images (B, 3, S, S) to pooled features (B, feature_dim).
        mean, std: of the input, for RGB in 0..1.
        image_size, resize_size: crop and shorter side before it, in pixels.
    """

    name: str
    network: str
    backbone: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int
    resize_size: int | None

    @property
    def feature_dim(self) -> int:
        return feature_dim_of(self.backbone)


def load_model(model: str, *, pretrained: bool = True, seed: int = 0) -> NamedModel:
    """Load a zoo or timm model, also `hf-hub:`; a run folder; a catalog teacher such as lite0; or an authors' file.

    Whatever is drawn comes from a stream of its own: the global generator stays as it is.

    Args:
        pretrained: False gives random weights, of zoo and timm models only: the figure to compare with.
        seed: of those random weights; the same seed gives the same network.

    Raises:
        UnknownName: there is nothing of this name.
        WeightsError, BadCheckpoint: its weights cannot be had.
        DiscoZooError: random weights of something that is its weights.
    """
    with drawing_from("untrained", seed):
        return _load(model, pretrained)


def _load(model: str, pretrained: bool) -> NamedModel:
    path = user_path(model.removeprefix(FOLDER_PREFIX))
    if (folder := find_classifier_folder(path) or find_backbone_folder(path)) is not None:
        _require_pretrained(model, pretrained)
        return _of_classifier(model, folder)
    # A checkpoint may be called anything, e.g. `model_best`.
    if path.exists() or path.suffix in FILE_SUFFIXES or model in load_catalog().teachers:
        _require_pretrained(model, pretrained)
        return _of_teacher(model, _load_other(model, path))
    return _of_timm(model, pretrained)


def _require_pretrained(model: str, pretrained: bool) -> None:
    if not pretrained:
        raise DiscoZooError(f"{model} is its weights. For random ones give the name of a zoo or timm model.")


def _of_timm(model: str, pretrained: bool) -> NamedModel:

    name = model if model.startswith(HUB_PREFIX) or timm.is_model(model) else _zoo_name(model)
    backbone = create_by_timm(name, pretrained=pretrained)
    cfg = timm.data.resolve_model_data_config(backbone)
    size = cfg["input_size"][-1]
    return NamedModel(model, name, backbone, cfg["mean"], cfg["std"], size, math.floor(size / cfg["crop_pct"]))


def _zoo_name(model: str) -> str:
    """The full name of what the zoo knows by a shorter one: `effb0`, `effb0.TAG`."""
    try:
        name = load_catalog().resolve(model).name
    except UnknownName:
        name = model
    if not timm.is_model(name):
        known = [*timm.list_models(), *load_catalog().teachers]
        raise UnknownName(f"'{model}' is no zoo model, timm model, run folder or file.{did_you_mean(model, known)}")
    return name


def _of_classifier(model: str, folder: Path) -> NamedModel:
    network, facts = backbone_of(folder)
    cfg: Any = network.pretrained_cfg
    architecture = str(cfg["architecture"])
    return NamedModel(model, architecture, network, facts.mean, facts.std, facts.image_size, facts.resize_size)


def _load_other(model: str, path: Path) -> LoadedTeacher:
    if path.suffix in FILE_SUFFIXES and not path.exists():
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UnknownName(f"there is no file {model}.{did_you_mean(path.name, beside)}")
    try:
        return load_teacher_source(model)
    except BadTeacher as error:
        raise DiscoZooError(str(error).removeprefix("this cannot teach: ")) from error


def _of_teacher(model: str, loaded: LoadedTeacher) -> NamedModel:
    cfg: Any = loaded.backbone.pretrained_cfg
    size, network = loaded.image_size or cfg["input_size"][-1], str(cfg["architecture"])
    return NamedModel(model, network, loaded.backbone, loaded.mean, loaded.std, size, loaded.resize_size)
