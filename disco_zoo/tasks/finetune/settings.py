"""Settings of a fine-tuning: every key with its default, validated before anything is loaded, and their file."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError

from disco_zoo.config.optim import OptimSection
from disco_zoo.core.schema import Section, explain
from disco_zoo.core.yaml_io import dump_yaml, read_value
from disco_zoo.errors import BadRecipe

DEFAULT_EPOCHS, MIN_STEPS = 20, 400
LAYER_DECAY = 0.75
LR, HEAD_LR = 1e-3, 1e-2
VAL_FRACTION = 0.1


class FinetuneSettings(Section):
    """All that decides the weights on one machine, with the images.

    None stands for "by default", which `resolved` writes out once the number of images is known.
    """

    model: str
    untrained: bool = False  # random weights: the figure to compare with
    new_head: bool = False  # for a model that is fine-tuned already: forget its classes
    head_only: bool = False
    seed: int = Field(default=0, ge=0, lt=2**63)
    few: int | None = Field(default=None, ge=1)  # training images of each class, drawn by the seed
    val_fraction: float | None = Field(default=None, ge=0, lt=1)  # of the training images; chooses the best epoch
    max_test_images: int | None = Field(default=None, ge=1)
    image_size: int | None = Field(default=None, ge=16)  # pixels
    augment: Literal["none", "light", "strong"] = "light"
    mixup: float = Field(default=0.0, ge=0)  # α of its Beta distribution; 0 is off
    cutmix: float = Field(default=0.0, ge=0)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    class_weights: Literal["none", "balanced"] = "none"
    epochs: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=64, ge=4)  # below, a step might have one image, too few for BatchNorm
    lr: float | None = Field(default=None, gt=0)  # the head's peak, whatever the batch size
    layer_decay: float | None = Field(default=None, gt=0, le=1)  # lr factor from each layer to the one below
    weight_decay: float = Field(default=0.05, ge=0)
    warmup: float = Field(default=0.1, ge=0, lt=1)  # share of the steps
    patience: int | None = Field(default=None, ge=1)  # epochs without a better one before it stops
    batch_norm: Literal["train", "eval"] = "train"
    precision: Literal["fp32", "bf16"] = "fp32"
    checkpoint_every_steps: int = Field(default=500, ge=1)

    def resolved(self, num_train: int) -> FinetuneSettings:
        """With every default written out, for `num_train` training images.

        Small sets get more epochs, so that at least `MIN_STEPS` steps are made. A random start has no lower layers to
        spare: all its layers learn at one rate.
        """
        spared = not (self.untrained or self.head_only)
        defaults = {
            "epochs": max(DEFAULT_EPOCHS, math.ceil(MIN_STEPS / steps_per_epoch(num_train, self.batch_size))),
            "lr": HEAD_LR if self.head_only else LR,
            "layer_decay": LAYER_DECAY if spared else 1.0,
        }
        return self.model_copy(update={key: value for key, value in defaults.items() if getattr(self, key) is None})

    @property
    def held_out(self) -> float:
        """Share of the training images that choose the best epoch; few labels are all for training."""
        if self.val_fraction is not None:
            return self.val_fraction
        return 0.0 if self.few else VAL_FRACTION

    @property
    def optim(self) -> OptimSection:
        """The schedule in a recipe's words: linear warm-up, then half a cosine to zero. For `resolved` settings."""
        assert self.epochs is not None
        assert self.lr is not None
        return OptimSection(
            optimizer="adamw",
            batch_size=self.batch_size,
            base_lr=self.lr,
            weight_decay=self.weight_decay,
            schedule="cosine_step",
            warmup_epochs=self.warmup * self.epochs,
            epochs=self.epochs,
        )

    def as_dict(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    def as_yaml(self) -> str:
        return dump_yaml(self.as_dict(), a_line_each=True)

    def digest(self) -> str:
        """Sha256 of what decides the weights, which the interval of checkpoints does not."""
        decisive = {key: value for key, value in self.as_dict().items() if key != "checkpoint_every_steps"}
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def steps_per_epoch(num_train: int, batch_size: int) -> int:
    return math.ceil(num_train / batch_size)


def read_settings(given: Mapping[str, Any], overrides: Iterable[str] = ()) -> FinetuneSettings:
    """Settings from options and `--set key=value`, which wins.

    Raises:
        BadRecipe: all faults together.
    """
    values, faults = {key: value for key, value in given.items() if value is not None}, []
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            faults.append(f"--set {override}: write --set key=value")
            continue
        values[key.strip()] = read_value(text)
    settings = None
    try:
        settings = FinetuneSettings.model_validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        faults += explain(error, FinetuneSettings)
    if settings is not None:
        faults += _contradictions(settings)
    if faults or settings is None:
        raise BadRecipe("finetune: " + "; ".join(faults))
    return settings


def _contradictions(settings: FinetuneSettings) -> list[str]:
    faults = []
    if settings.patience is not None and settings.held_out == 0:
        faults.append("patience: needs held-out images to judge by. Add --set val_fraction=0.2")
    if settings.head_only and settings.untrained:
        faults.append("head_only: random features teach a head next to nothing. Leave this or untrained out")
    if settings.head_only and settings.layer_decay not in (None, 1.0):
        faults.append("layer_decay: only the head learns, it has no layer below. Leave it out")
    return faults


SETTINGS = "finetune.yaml"


def difference(former: dict[str, Any], settings: dict[str, Any]) -> str | None:
    """The first setting that influences the weights and differs, as text; None where there is none."""
    for key, value in settings.items():
        if key != "checkpoint_every_steps" and former.get(key) != value:
            return f"{key}: {former.get(key)} there, {value} here"
    return None
