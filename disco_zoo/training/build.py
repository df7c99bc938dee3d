"""Builds the networks of a run from its recipe. The recipe's seed determines all random weights."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor, nn

from disco_zoo.config.recipe import Recipe, TeacherSection, method_options
from disco_zoo.core.distributed import rank
from disco_zoo.core.random_streams import stream_generator, stream_seed
from disco_zoo.data.dataset import ImageSource
from disco_zoo.data.stream_source import StreamSource
from disco_zoo.data.unreadable import load_or_replace
from disco_zoo.methods import METHODS, Method
from disco_zoo.methods.base import SmallViews
from disco_zoo.models.encoder import Encoder, feature_dim_of
from disco_zoo.models.student import (
    Inheritance,
    build_student,
    create_backbone,
    inherit_weights,
    load_backbone,
    recalibrate_batch_norm,
)
from disco_zoo.models.teacher import Teacher
from disco_zoo.models.teacher_source import LoadedTeacher, load_teacher_source, named_by
from disco_zoo.networks.input_size import SizedNetwork, require_input_size, require_small_size
from disco_zoo.training.run_data import shuffled_images
from disco_zoo.transforms.eval import eval_transform
from disco_zoo.transforms.view_dataset import small_size_of

DEFAULT_EMBED_DIM = 128
RECALIBRATION_BATCH = 64


@dataclass
class Parts:
    """The networks of a run: what is trained, and the teacher.

    Attributes:
        method: holds the student; `method.student` is an `Encoder`.
        teacher: None for methods without one.
        inheritance: what the start took from where, None unless `student.init: inherit`.
    """

    method: Method
    teacher: Teacher | None
    inheritance: Inheritance | None

    @property
    def student(self) -> Encoder:
        return self.method.student


def build_parts(
    recipe: Recipe,
    source: ImageSource,
    device: torch.device | str = "cpu",
    *,
    loaded: LoadedTeacher | None = None,
    at_hand: Teacher | None = None,
) -> Parts:
    """Load the teacher, initialise the student, wrap both in the method.

    The backbone's random weights depend on the seed alone, so a baseline with the same seed starts equal.

    Args:
        loaded: the teacher's networks, where they do not come from `teacher.source`.
        at_hand: a teacher that the command has loaded already: taken where it is the recipe's, or the student inherits
            from it, instead of loading it again.
    """
    shared = at_hand is not None and _is_teacher_of(recipe, at_hand)
    teacher = at_hand if shared else seeded_teacher(recipe, device, loaded)
    student, inheritance = _build_student(recipe, source, teacher, device, at_hand)
    _seed("method", recipe.seed)
    method_class = METHODS[recipe.method["name"]]
    embed_dim = _embed_dim(recipe, teacher, student.backbone)
    method = method_class(student, teacher, embed_dim, len(source), **method_options(recipe)).to(device)
    method.crops = small_views_of(recipe)
    _check_small_size(recipe, student, teacher)
    # Dropout masks: other ones on each process, since each has other images.
    _seed("training", *((recipe.seed, rank()) if rank() else (recipe.seed,)))
    return Parts(method, teacher, inheritance)


def small_views_of(recipe: Recipe) -> SmallViews | None:
    """The small crops, each network seeing them in the same proportion to its own input size."""
    count = recipe.views["small_views"]
    if not count:
        return None
    drawn = small_size_of(recipe.views, recipe.view_size)
    return SmallViews(
        count,
        student_size=round(drawn * recipe.student.image_size / recipe.view_size),
        teacher_size=round(drawn * recipe.teacher_size / recipe.view_size),
    )


def _check_small_size(recipe: Recipe, student: Encoder, teacher: Teacher | None) -> None:
    """Try the small crops on each network before training does: transformers take whole patches only."""
    if not recipe.views["small_views"]:
        return
    networks = [SizedNetwork(recipe.student.model, student.backbone, recipe.student.image_size, recipe.view_size)]
    if teacher is not None:
        networks.append(SizedNetwork(teacher.title, teacher.backbone, teacher.encoder.image_size, recipe.view_size))
    require_small_size(small_size_of(recipe.views, recipe.view_size), networks)


def _is_teacher_of(recipe: Recipe, teacher: Teacher) -> bool:
    """Whether a loaded teacher is the recipe's, and one that no run changes."""
    section = recipe.teacher
    if section is None or section.std or not section.pretrained or "train" in (section.bn_mode, teacher.bn_mode):
        return False
    wanted = (section.source, recipe.teacher_size, section.features)
    return wanted == (teacher.loaded.source, teacher.encoder.image_size, teacher.features)


def seeded_teacher(recipe: Recipe, device: torch.device | str, loaded: LoadedTeacher | None = None) -> Teacher | None:
    """The recipe's teacher; where it has random weights, those of the recipe's seed."""
    _seed("teacher", recipe.seed)
    return build_teacher(recipe.teacher_size, recipe.teacher, device, loaded) if recipe.teacher else None


def build_teacher(
    image_size: int, section: TeacherSection, device: torch.device | str, loaded: LoadedTeacher | None = None
) -> Teacher:
    with named_by("teacher.source"):
        loaded = loaded or load_teacher_source(section.source, pretrained=section.pretrained)
    return Teacher(
        # Without a source it is no other recipe's teacher.
        loaded if section.std is None else replace(loaded, std=section.std, source=""),
        image_size=image_size,
        features=section.features,
        bn_mode=section.bn_mode,
        device=device,
    )


def _build_student(
    recipe: Recipe,
    source: ImageSource,
    teacher: Teacher | None,
    device: torch.device | str,
    at_hand: Teacher | None,
) -> tuple[Encoder, Inheritance | None]:
    wanted = recipe.student
    _seed("backbone", recipe.seed)
    backbone = create_backbone(wanted.model, wanted.options, wanted.weight_init)
    for size in {wanted.image_size, *itertools.chain(*wanted.image_sizes.values())}:
        require_input_size(backbone, size, wanted.model)
    inheritance = None
    if wanted.init == "checkpoint" and wanted.init_from:
        load_backbone(backbone, wanted.init_from)
    if wanted.init == "inherit":
        inheritance = inherit_weights(backbone, _donor(recipe, teacher or at_hand).backbone)
    _seed("head", recipe.seed)
    student = build_student(
        backbone,
        embed_dim=_embed_dim(recipe, teacher, backbone),
        head=wanted.head,
        head_hidden_dim=wanted.head_hidden_dim,
        head_hidden_ratio=wanted.head_hidden_ratio,
        head_dropout=wanted.head_dropout,
        image_size=wanted.image_size,
        mean=wanted.mean,
        std=wanted.std,
    ).to(device)
    student.image_size = wanted.first_size
    if inheritance is not None:
        recalibrate_batch_norm(student, _calibration_batches(recipe, source, device))
    return student, inheritance


def _donor(recipe: Recipe, teacher: Teacher | None) -> LoadedTeacher | Teacher:
    """The network whose tensors the student inherits: `student.init_from`, or the loaded teacher."""
    wanted = recipe.student.init_from
    if wanted and (teacher is None or teacher.loaded.source != wanted):
        with named_by("student.init_from"):
            return load_teacher_source(wanted)
    assert teacher is not None  # the recipe's check demands one of the two
    return teacher


def _calibration_batches(recipe: Recipe, source: ImageSource, device: torch.device | str) -> Iterator[Tensor]:
    """A random choice of training images under EVAL, since files are often sorted by class."""
    size = recipe.student.first_size
    transform = eval_transform(size, recipe.resize_at(size) or size)
    wanted = min(recipe.student.recalibration_images, len(source))
    images = _calibration_images(recipe, source, wanted)
    # A small last batch would weigh as much as a full one, and BatchNorm refuses a single value.
    for _ in range(0, max(1, wanted - RECALIBRATION_BATCH + 1), RECALIBRATION_BATCH):
        batch = itertools.islice(images, RECALIBRATION_BATCH)
        yield torch.stack([transform(image) for image in batch]).to(device)


def _calibration_images(recipe: Recipe, source: ImageSource, wanted: int) -> Iterator[Image.Image]:
    if isinstance(source, StreamSource):
        return shuffled_images(recipe, source, wanted)
    order = torch.randperm(len(source), generator=stream_generator("calibration", recipe.seed))
    return (load_or_replace(source, index)[0] for index in order[:wanted].tolist())


def _embed_dim(recipe: Recipe, teacher: Teacher | None, backbone: nn.Module) -> int:
    wanted = recipe.student
    if wanted.embed_dim is None and wanted.head == "none" and METHODS[recipe.method["name"]].own_width:
        return feature_dim_of(backbone)
    return wanted.embed_dim or (teacher.embed_dim if teacher else DEFAULT_EMBED_DIM)


def _seed(purpose: str, *key: int) -> None:
    torch.manual_seed(stream_seed(purpose, *key))


def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
