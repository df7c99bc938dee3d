"""A backbone by the name people type: what every command that uses a model takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from torch import nn

from disco_zoo.catalog import load_catalog
from disco_zoo.encoder import feature_dim_of
from disco_zoo.errors import BadTeacher, DiscoZooError, UnknownName, did_you_mean
from disco_zoo.input_size import create_for_any_size
from disco_zoo.teachers import LoadedTeacher, load_teacher_source

FILE_SUFFIXES = {".pth", ".tar", ".pt", ".safetensors"}


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


def load_named_model(model: str, *, pretrained: bool = True) -> NamedModel:
    """Load a zoo or timm model, also `hf-hub:`; a run folder; a catalog teacher such as lite0; or an authors' file.

    Args:
        pretrained: False gives random weights, of zoo and timm models only: the figure to compare with.

    Raises:
        UnknownName: there is nothing of this name.
        WeightsError, BadCheckpoint: its weights cannot be had.
        DiscoZooError: random weights of something that is its weights.
    """
    path = Path(model).expanduser()
    from disco_zoo.finetune.classifier_folder import find_classifier_folder  # here: finetune.start imports this module

    if (folder := find_classifier_folder(path)) is not None:
        _require_pretrained(model, pretrained)
        return _of_classifier(model, folder)
    if path.is_dir() or path.suffix in FILE_SUFFIXES or model in load_catalog().teachers:
        _require_pretrained(model, pretrained)
        return _of_teacher(model, _load_other(model))
    import disco_zoo.disco_students  # noqa: F401  registers the zoo's names

    if not model.startswith("hf-hub:") and not timm.is_model(model):
        known = [*timm.list_models(), *load_catalog().teachers]
        raise UnknownName(f"'{model}' is no zoo model, timm model, run folder or file.{did_you_mean(model, known)}")
    backbone = create_for_any_size(model, pretrained=pretrained, num_classes=0)
    cfg = timm.data.resolve_model_data_config(backbone)
    size = cfg["input_size"][-1]
    return NamedModel(model, model, backbone, cfg["mean"], cfg["std"], size, math.floor(size / cfg["crop_pct"]))


def _require_pretrained(model: str, pretrained: bool) -> None:
    if not pretrained:
        raise DiscoZooError(f"{model} is its weights. For random ones give the name of a zoo or timm model.")


def _of_classifier(model: str, folder: Path) -> NamedModel:
    from disco_zoo.finetune.start import backbone_of

    network, facts = backbone_of(folder)
    cfg: Any = network.pretrained_cfg
    architecture = str(cfg["architecture"])
    return NamedModel(model, architecture, network, facts.mean, facts.std, facts.image_size, facts.resize_size)


def _load_other(model: str) -> LoadedTeacher:
    try:
        return load_teacher_source(model)
    except BadTeacher as error:
        raise DiscoZooError(str(error).removeprefix("this cannot teach: ")) from error


def _of_teacher(model: str, loaded: LoadedTeacher) -> NamedModel:
    cfg: Any = loaded.backbone.pretrained_cfg
    size, network = loaded.image_size or cfg["input_size"][-1], str(cfg["architecture"])
    return NamedModel(model, network, loaded.backbone, loaded.mean, loaded.std, size, loaded.resize_size)
