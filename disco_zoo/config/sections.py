"""Sections of a recipe: the student's keys, and faults of teacher and views that depend on other sections."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt

from disco_zoo.core.schema import Section, section_of
from disco_zoo.models.student import WeightInit
from disco_zoo.transforms.view_dataset import small_size_of

Channels = tuple[float, float, float]
Deviations = tuple[PositiveFloat, PositiveFloat, PositiveFloat]
Pixels = Annotated[int, Field(ge=16)]
Sizes = Annotated[list[Pixels], Field(min_length=1), BeforeValidator(lambda sizes: _as_list(sizes))]

# What other keys decide, or what would make timm return something else than a headless backbone.
_RESERVED_OPTIONS = {
    "num_classes": "a student has no classifier; its head is student.head",
    "pretrained": "the start is student.init",
    "checkpoint_path": "the start is student.init",
    "pretrained_cfg": "the start is student.init",
    "pretrained_cfg_overlay": "the start is student.init",
    "cache_dir": "a student starts without a download",
    "model_name": "the model is student.model",
    "in_chans": "images have 3 channels",
    "global_pool": "a student's features are pooled as its model pools them",
    "features_only": "a student's features are pooled",
    "scriptable": "students are trained in eager mode",
    "exportable": "students are trained in eager mode",
}
# timm's convolutional networks accept anything here and fail in the first step.
_SHARES = ("_rate", "bn_momentum")


class StudentSection(Section):
    model: str
    # further arguments of timm.create_model: numbers, texts, true or false
    options: dict[str, Any] = Field(default_factory=dict)
    image_size: Pixels  # at which the student ends
    # {epoch: pixels, or several sizes that steps take in turn} from that epoch on; empty: image_size throughout
    image_sizes: dict[float, Sizes] = Field(default_factory=dict)
    mean: Channels = (0.485, 0.456, 0.406)
    std: Deviations = (0.229, 0.224, 0.225)
    head: Literal["mlp", "mlp_bn", "linear", "none"] = "mlp"
    embed_dim: PositiveInt | None = None  # None: the teacher's, or 128 without a teacher
    head_hidden_dim: PositiveInt | None = 2048  # None: the feature width (MoCo-v2's rule); DisCo fixes 2048
    head_hidden_ratio: PositiveFloat | None = None  # in place of head_hidden_dim: this many times the feature width
    head_dropout: float = Field(default=0.0, ge=0, lt=1)  # of the features in front of the head
    init: Literal["random", "inherit", "checkpoint"] = "random"
    # Distributions that random weights are drawn from: timm's, or those of the authors' code (spec 1.5).
    weight_init: WeightInit = "timm"
    # inherit: a teacher source, default teacher.source; checkpoint: a file, a run folder or a checkpoint of the zoo
    init_from: str | None = None
    recalibration_images: PositiveInt = 1024  # inherit only: images that set BatchNorm's statistics
    gradient_checkpointing: bool = False  # less memory for a second forward

    @property
    def first_size(self) -> int:
        """Side in pixels at which the student begins."""
        return self.image_sizes[min(self.image_sizes)][0] if self.image_sizes else self.image_size


def with_one_width(values: dict[str, Any]) -> dict[str, Any]:
    """A recipe's values in which head_hidden_ratio, where given, has taken the place of head_hidden_dim's default."""
    student = section_of(values, "student")
    if student.get("head_hidden_ratio") is None:
        return values
    return {**values, "student": {"head_hidden_dim": None, **student}}


def check_student(values: dict[str, Any]) -> list[str]:
    """Faults between the keys of a recipe's `student`, which each alone may be right, and in its `options`."""
    student = section_of(values, "student")
    head, ratio, dropout = student.get("head"), student.get("head_hidden_ratio"), student.get("head_dropout")
    faults = []
    if ratio is not None and student.get("head_hidden_dim") is not None:
        faults.append("student.head_hidden_ratio: head_hidden_dim is set too; write null for one of them")
    if ratio is not None and head in ("linear", "none"):
        faults.append(f"student.head_hidden_ratio: head {head} has no hidden layer; leave it out or write null")
    if _is_positive(dropout) and head == "none":
        faults.append("student.head_dropout: head none has nothing to drop for; leave it out or write 0")
    if student.get("gradient_checkpointing") is True and section_of(values, "optim").get("compile") is True:
        faults.append("student.gradient_checkpointing: not together with optim.compile; choose one of them")
    if student.get("init") == "checkpoint" and student.get("weight_init", "timm") != "timm":
        faults.append(
            "student.weight_init: init checkpoint has every tensor from its file. Type: --set student.weight_init=timm"
        )
    faults += _check_image_sizes(values)
    options = student.get("options")
    if not isinstance(options, dict):
        return faults
    if _is_positive(dropout) and _is_positive(options.get("drop_rate")):
        faults.append("student.head_dropout: options.drop_rate already drops timm's pooled features; keep one of them")
    for key, value in options.items():
        if key in _RESERVED_OPTIONS:
            faults.append(f"student.options.{key}: {_RESERVED_OPTIONS[key]}; leave it out")
        elif not _is_scalar(value):
            faults.append(f"student.options.{key}: must be a finite number, a text, true or false, not {value}")
        elif key.endswith(_SHARES) and not (_is_number(value) and 0 <= value < 1):
            faults.append(f"student.options.{key}: must be a number from 0 to below 1, not {value}")
    return faults


def _check_image_sizes(values: dict[str, Any]) -> list[str]:
    """Faults of a schedule of sizes beside the epochs and the final size."""
    student, epochs = section_of(values, "student"), section_of(values, "optim").get("epochs")
    final, schedule = student.get("image_size"), student.get("image_sizes")
    try:
        phases = {float(epoch): list(_as_list(sizes)) for epoch, sizes in (schedule or {}).items()}
    except (AttributeError, TypeError, ValueError):
        return []  # the schema says what is wrong
    if not phases or not all(sizes and all(type(size) is int for size in sizes) for sizes in phases.values()):
        return []
    faults = []
    first, last = min(phases), max(phases)
    if len(phases) < len(schedule or {}):
        faults.append("student.image_sizes: an epoch stands twice")
    if first != 0:
        faults.append(f"student.image_sizes: must begin at epoch 0, not {first:g}")
    if type(epochs) is int and last >= epochs:
        faults.append(f"student.image_sizes: epoch {last:g} never comes: there are {epochs}, counted from 0")
    if type(final) is int and (largest := max(phases[last])) != final:
        faults.append(
            f"student.image_sizes: ends at {largest} px, but student.image_size is {final}. "
            f"Type: --set student.image_size={largest}"
        )
    if section_of(values, "views").get("small_views"):
        faults.append("student.image_sizes: not together with views.small_views; leave one of them out")
    return faults


def _as_list(sizes: Any) -> Any:
    return [sizes] if type(sizes) is int else sizes


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _is_positive(value: Any) -> bool:
    return _is_number(value) and value > 0


def _is_scalar(value: Any) -> bool:
    return isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))


def check_teacher(values: dict[str, Any]) -> list[str]:
    """A cache that the teacher or the method cannot use, or of more views than the epochs need."""
    from disco_zoo.methods import METHODS

    teacher, given = section_of(values, "teacher"), section_of(values, "method")
    name, views = given.get("name"), teacher.get("cache_views")
    method = METHODS.get(name) if isinstance(name, str) else None
    if method is None or type(views) is not int or views < 1:
        return []
    if teacher.get("bn_mode") == "train":
        return [
            "teacher.cache_views: with bn_mode train the teacher's embedding of a view depends on its batch. "
            "Type: --set teacher.bn_mode=eval, or --set teacher.cache_views=null"
        ]
    if given.get("cached_teacher"):
        return ["teacher.cache_views: method.cached_teacher already replaces the teacher; leave one of them out"]
    if views % method.num_views:
        fitting = max(views // method.num_views, 1) * method.num_views
        return [
            f"teacher.cache_views: must be a multiple of the {method.num_views} views that {name} takes a step, "
            f"not {views}. Type: --set teacher.cache_views={fitting}"
        ]
    epochs = section_of(values, "optim").get("epochs")
    if type(epochs) is int and 0 < (needed := epochs * method.num_views) < views:
        return [
            f"teacher.cache_views: {name} over {epochs} epoch{'s' if epochs > 1 else ''} never needs more than "
            f"{needed} views, not {views}. Type: --set teacher.cache_views={needed}"
        ]
    return []


def check_views(values: dict[str, Any]) -> list[str]:
    """Small crops that the method does not take, lacks, or that are no smaller than the others."""
    from disco_zoo.methods import METHODS

    views, name = section_of(values, "views"), section_of(values, "method").get("name")
    method = METHODS.get(name) if isinstance(name, str) else None
    count = views.get("small_views", 0)
    if method is None or type(count) is not int or count < 0:
        return []
    if count and views.get("size") is not None:
        return ["views.size: not together with views.small_views; leave one of them out"]
    if count and method.small_views == "no":
        return [f"views.small_views: method {name} takes no small crops; leave it out"]
    if not count and method.small_views == "needed":
        return [f"missing key 'views.small_views' (method {name} needs small crops)"]
    return _check_small_size(values, views) if count else []


def _check_small_size(values: dict[str, Any], views: dict[str, Any]) -> list[str]:
    sizes = [section_of(values, section).get("image_size") for section in ("student", "teacher")]
    known = [size for size in sizes if type(size) is int]
    given = views.get("small_size")
    if not known or (given is not None and (type(given) is not int or given < 1)):
        return []
    view_size = max(known)
    small = small_size_of(views, view_size)
    # Each network sees the small crops in the same proportion to its own input size, in whole pixels.
    if all(1 <= round(small * size / view_size) < size for size in known):
        return []
    return [
        f"views.small_size: must be smaller than the views' {view_size} pixels, also for each network, not {small}. "
        f"Type: --set views.small_size={small_size_of({}, view_size)}"
    ]
