"""The `optim` section of a recipe: its keys, and which of them belong to which optimizer and schedule."""

from __future__ import annotations

import itertools
import typing
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from disco_zoo.core.schema import Section, section_of
from disco_zoo.errors import BadRecipe, counted

COSINES = ("cosine_epoch", "cosine_step")


class OptimSection(Section):
    optimizer: Literal["sgd", "adamw", "larc", "lars"]
    batch_size: int = Field(ge=1)  # images a step, over all processes and accumulated micro-batches
    base_lr: float = Field(gt=0)  # for 256 images; the rate used is base_lr * batch_size / 256
    weight_decay: float = Field(ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)  # not for AdamW
    schedule: Literal["cosine_epoch", "cosine_step", "constant", "multistep", "seed_official"]
    warmup_epochs: float = Field(default=0.0, ge=0)
    # Share of the peak that step 0 takes. None: the first of W warm-up steps takes 1/W.
    warmup_start_fraction: float | None = Field(default=None, ge=0, le=1)
    final_lr_fraction: float = Field(default=0.0, ge=0, le=1)  # cosines only: where they end, as a share of the peak
    # cosines only: finished epochs -> share of the peak from which the cosine falls anew
    restarts: dict[PositiveInt, Annotated[float, Field(gt=0, le=1)]] = Field(default_factory=dict)
    # multistep only: finished epochs after which the rate is multiplied by gamma
    milestones_epochs: tuple[PositiveInt, ...] | None = Field(default=None, min_length=1)
    gamma: float | None = Field(default=None, gt=0)
    epochs: int = Field(ge=1)
    accumulation_steps: int = Field(default=1, ge=1)
    last_batch: Literal["drop", "keep"] = "drop"  # of an epoch, where the images do not fill it
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    sync_bn: bool = False
    compile: bool = False  # student's backbone and teacher, by torch.compile

    def steps_per_epoch(self, num_images: int) -> int:
        """Batches that an epoch of so many images has."""
        return -(-num_images // self.batch_size) if self.last_batch == "keep" else num_images // self.batch_size


# Keys without effect under other choices: (key, value that means "not given", chooser, choices it belongs to).
_BELONGS: tuple[tuple[str, Any, str, tuple[str, ...]], ...] = (
    ("momentum", 0.9, "optimizer", ("sgd", "larc", "lars")),
    ("milestones_epochs", None, "schedule", ("multistep",)),
    ("gamma", None, "schedule", ("multistep",)),
    ("final_lr_fraction", 0.0, "schedule", COSINES),
    ("restarts", {}, "schedule", COSINES),
    # SEED's schedule brings its own five epochs.
    ("warmup_epochs", 0.0, "schedule", (*COSINES, "constant", "multistep")),
)


def check_optim(values: dict[str, Any]) -> list[str]:
    """Faults between the keys of a recipe's `optim`, which each alone may be right."""
    optim = section_of(values, "optim")
    faults = []
    for key, neutral, chooser, choices in _BELONGS:
        chosen = optim.get(chooser)
        # Resolved recipes write out what means "not given".
        if optim.get(key) not in (None, neutral) and chosen in _choices(chooser) and chosen not in choices:
            remedy = f"leave it out or write {'null' if neutral is None else neutral}"
            faults.append(f"optim.{key}: belongs to {chooser} {' or '.join(choices)}, not {chosen}; {remedy}")
    if optim.get("schedule") == "multistep":
        for key in ("milestones_epochs", "gamma"):
            if optim.get(key) is None:
                faults.append(f"missing key 'optim.{key}' (schedule multistep needs it)")
    if optim.get("warmup_start_fraction") is not None and not optim.get("warmup_epochs"):
        faults.append("optim.warmup_start_fraction: needs optim.warmup_epochs above 0; leave it out or write null")
    return faults + _check_order(optim.get("milestones_epochs")) + _check_restarts(optim)


def _check_order(milestones: Any) -> list[str]:
    if not isinstance(milestones, list | tuple) or any(type(epoch) is not int for epoch in milestones):
        return []
    if all(a < b for a, b in itertools.pairwise(milestones)):
        return []
    return [f"optim.milestones_epochs: must grow, not {list(milestones)}"]


def _check_restarts(optim: dict[str, Any]) -> list[str]:
    """Faults of restarts beside the warm-up, the epochs and where the cosines end."""
    try:
        given = [(int(epoch), float(share)) for epoch, share in (optim.get("restarts") or {}).items()]
        warmup, final = float(optim.get("warmup_epochs") or 0), float(optim.get("final_lr_fraction") or 0)
    except (AttributeError, TypeError, ValueError):
        return []  # the schema says what is wrong
    faults, epochs = [], optim.get("epochs")
    if len(dict(given)) < len(given):
        faults.append("optim.restarts: an epoch stands twice")
    for epoch, share in given:
        if epoch < 1 or not 0 < share <= 1:
            continue  # here, too
        if type(epochs) is int and not warmup < epoch < epochs:
            where = f"after {warmup:g} epochs of warm-up and before the end, {epochs}"
            faults.append(f"optim.restarts: must lie {where}, not at {epoch}. Type: --set optim.restarts={{}}")
        elif share <= final:
            faults.append(f"optim.restarts: {share:g} at epoch {epoch} is not above final_lr_fraction {final:g}")
    return faults


def _choices(key: str) -> tuple[Any, ...]:
    return typing.get_args(OptimSection.model_fields[key].annotation)


def require_batches(optim: OptimSection, num_images: int, num_processes: int) -> None:
    """Check that a batch can be shared by processes and accumulation steps, and filled from the data.

    Raises:
        BadRecipe: it cannot; the message names a size that can.
    """
    forwards = optim.accumulation_steps * num_processes
    if num_images < 2 * forwards:
        remedy = ". Type: --set optim.accumulation_steps=1" if optim.accumulation_steps > 1 else ""
        raise BadRecipe(
            f"{counted(num_images, 'image')} cannot give {counted(forwards, 'forward')} two images each, which "
            f"BatchNorm needs{remedy or ': train on more images, or in fewer processes'}"
        )
    if optim.batch_size < 2 * forwards:
        raise BadRecipe(
            f"optim.batch_size {optim.batch_size} leaves a forward fewer than two images, which BatchNorm needs. "
            f"Type: --set optim.batch_size={_fitting(optim, optim.batch_size, num_images, forwards)}"
        )
    if num_images < optim.batch_size:
        raise BadRecipe(
            f"optim.batch_size {optim.batch_size} is larger than the data ({num_images} images). "
            f"Type: --set optim.batch_size={_fitting(optim, num_images // 2, num_images, forwards)}"
        )
    if optim.batch_size % forwards:
        raise BadRecipe(
            f"optim.batch_size {optim.batch_size} cannot be shared by {counted(num_processes, 'process')} with "
            f"{counted(optim.accumulation_steps, 'accumulation step')}. "
            f"Type: --set optim.batch_size={_fitting(optim, optim.batch_size, num_images, forwards)}"
        )
    if optim.last_batch == "keep" and (forwards > 1 or num_images % optim.batch_size == 1):
        what = "cannot be shared by several forwards" if forwards > 1 else "has one image, and BatchNorm needs two"
        raise BadRecipe(f"the last batch of an epoch {what}. Type: --set optim.last_batch=drop")


def shared_batch(at_most: int, forwards: int) -> int:
    """The largest batch of at most `at_most` images that forwards share alike; of two images each at least."""
    return max(2, at_most // forwards) * forwards


def _fitting(optim: OptimSection, at_most: int, num_images: int, forwards: int) -> int:
    """A batch of at most `at_most` images, or of a few more where the forwards or the last batch need them."""
    size = shared_batch(at_most, forwards)
    keeps = optim.last_batch == "keep" and forwards == 1
    return next(larger for larger in itertools.count(size) if not (keeps and num_images % larger == 1))
