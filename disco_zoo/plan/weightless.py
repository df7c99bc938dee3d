"""The networks of a run without weights: their cost depends on shapes alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from disco_zoo.config.recipe import Recipe
from disco_zoo.data.dataset import ImageSource
from disco_zoo.errors import BadTeacher
from disco_zoo.models.encoder import feature_dim_of
from disco_zoo.models.teacher_source import LoadedTeacher, load_teacher_source
from disco_zoo.modules.momentum_contrast import projection_head
from disco_zoo.networks.input_size import create_for_any_size
from disco_zoo.training.build import Parts, build_parts
from disco_zoo.zoo.catalog import Teacher as TeacherRow
from disco_zoo.zoo.catalog import load_catalog


def without_weights(recipe: Recipe) -> Recipe:
    """The recipe with random starts in place of files; shapes and costs stay the same."""
    student = recipe.student.model_copy(update={"init": "random", "init_from": None})
    teacher = recipe.teacher and recipe.teacher.model_copy(update={"pretrained": False})
    files: Mapping[str, Any] = {"queue_init": "random", "bags": None}
    method = {key: files.get(key, value) for key, value in recipe.method.items()}
    return recipe.model_copy(update={"student": student, "teacher": teacher, "method": method})


def build_weightless(recipe: Recipe, source: ImageSource, device: torch.device | str) -> Parts:
    """The networks of a recipe from random weights, or on the device "meta" from none.

    Args:
        recipe: from `without_weights`.

    Raises:
        BadTeacher: nobody knows the teacher's network without its file.
    """
    with torch.device(device):
        loaded = weightless_teacher(recipe.teacher.source) if recipe.teacher else None
        return build_parts(recipe, source, device, loaded=loaded)


def weightless_teacher(name: str) -> LoadedTeacher:
    """A teacher by its source, without its weights and without a download.

    A teacher of the catalog that has an SSL head gets MoCo-v2's: Linear, ReLU, Linear, as wide as the features.

    Raises:
        BadTeacher: a file or folder that is missing or damaged, or a name whose network only the Hub knows.
        UnknownName: no such model, or nobody published which network it has.
    """
    catalog = load_catalog()
    if name in catalog.teachers:
        return _from_catalog(catalog.teachers[name], catalog.network_of(catalog.teachers[name]))
    if name.startswith("hf-hub:"):
        raise BadTeacher(
            f"plan downloads nothing, and only the Hub knows {name}. Name its network: --set teacher.source=TIMM_NAME"
        )
    path = Path(name).expanduser()
    if not path.exists():
        return load_teacher_source(name, pretrained=False)
    with torch.device("cpu"):  # files hold real tensors
        return load_teacher_source(name)


def _from_catalog(row: TeacherRow, network: str) -> LoadedTeacher:
    backbone = create_for_any_size(network, pretrained=False, num_classes=0)
    width = feature_dim_of(backbone)
    head: nn.Module = projection_head(width, width, row.embed_dim) if row.embed_dim else nn.Identity()
    return LoadedTeacher(
        row.title, backbone, head, row.embed_dim or width, tuple(row.input.mean), tuple(row.input.std), supervised=None
    )
