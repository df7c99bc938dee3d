"""All that decides a detector besides its backbone and data, and the papers' values as presets (spec 4.5).

What the table of spec 4.5 leaves open is detectron2's default: momentum 0.9, weight decay 1e-4 but none on
normalisation layers, decay ×0.1, warm-up from a thousandth (COCO: over 1000 steps), 256 anchors and 512 regions an
image, difficult objects of VOC among what is learnt.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from disco_zoo.core.schema import Section
from disco_zoo.errors import BadRecipe
from disco_zoo.tasks.detection.annotations import AnnotatedSet
from disco_zoo.tasks.run_settings import changed, preset_named

VOC_SIZES = tuple(range(480, 801, 32))
COCO_SIZES = tuple(range(640, 801, 32))


class DetectionSettings(Section):
    """Sizes are in pixels of the image's shorter side; steps are optimiser steps.

    `sizes` are drawn from while training; the last one is the size at which is measured. `ap_points` are recall levels
    of the average precision: 101 as COCO, 11 as VOC 2007. `precise_bn_batches` are training batches over which
    BatchNorm's statistics are averaged anew before measuring. `batch_norm` "frozen" keeps the backbone's statistics.
    """

    neck: Literal["fpn", "c4"] = "fpn"
    optimizer: Literal["sgd", "adamw"] = "sgd"
    batch_size: int = Field(default=16, ge=1)
    lr: float = Field(default=0.02, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    steps: int = Field(default=24_000, ge=1)
    decay_at: tuple[int, ...] = (18_000, 22_000)
    warmup_steps: int = Field(default=100, ge=0)
    clip_norm: float | None = Field(default=None, gt=0)
    sizes: tuple[int, ...] = Field(default=VOC_SIZES, min_length=1)
    max_size: int = Field(default=1333, ge=32)
    anchor_sizes: tuple[int, int, int, int, int] = (32, 64, 128, 256, 512)
    channels: int = Field(default=256, ge=8)
    head_width: int = Field(default=1024, ge=8)
    regions: int = Field(default=512, ge=1)
    proposals_before_nms: int = Field(default=12_000, ge=1)
    proposals: int = Field(default=2000, ge=1)
    test_proposals_before_nms: int = Field(default=6000, ge=1)
    test_proposals: int = Field(default=1000, ge=1)
    batch_norm: Literal["train", "frozen"] = "train"
    precise_bn_batches: int = Field(default=200, ge=0)
    precision: Literal["fp32", "bf16"] = "fp32"
    ap_points: Literal[11, 101] = 101
    eval_every: int = Field(default=0, ge=0)
    checkpoint_every: int = Field(default=500, ge=1)


VOC = DetectionSettings(neck="c4", ap_points=11)
# FPN's own number of proposals is detectron2's: 2000 and 1000 on all levels.
PRESETS = {
    "fast": DetectionSettings(
        neck="fpn",
        optimizer="adamw",
        batch_size=4,
        lr=5e-4,
        weight_decay=1e-2,
        steps=600,
        decay_at=(450, 550),
        warmup_steps=20,
        clip_norm=10.0,
        sizes=(256, 288, 320),
        anchor_sizes=(16, 32, 64, 128, 256),
        channels=128,
        head_width=256,
        regions=128,
        proposals_before_nms=1000,
        proposals=500,
        test_proposals_before_nms=1000,
        test_proposals=300,
        batch_norm="frozen",
        precise_bn_batches=0,
        eval_every=100,
        checkpoint_every=100,
    ),
    "voc": VOC,
    "voc_disco": VOC.model_copy(
        update={"batch_size": 32, "lr": 0.01, "steps": 48_000, "warmup_steps": 200, "sizes": (400, *VOC_SIZES)}
    ),
    "coco_2x": DetectionSettings(
        neck="c4",
        steps=180_000,
        decay_at=(120_000, 160_000),
        warmup_steps=1000,
        sizes=COCO_SIZES,
        checkpoint_every=2000,
    ),
}


def detection_settings(preset: str, neck: str | None = None, overrides: Iterable[str] = ()) -> DetectionSettings:
    """A preset with changes. Where `steps` changes alone, warm-up and decays move in proportion.

    Args:
        neck: "fpn" or "c4" instead of the preset's.

    Raises:
        UnknownName: no such preset.
        BadRecipe: unknown keys, unfit values, or values that do not go together.
    """
    base = preset_named(PRESETS, preset)
    settings, given = changed(base, [*([f"neck={neck}"] if neck else []), *overrides])
    share = settings.steps / base.steps
    moved: dict[str, object] = {}
    if "decay_at" not in given:
        moved["decay_at"] = tuple(round(step * share) for step in settings.decay_at)
    if "warmup_steps" not in given:
        moved["warmup_steps"] = round(settings.warmup_steps * share)
    settings = settings.model_copy(update=moved)
    if min(settings.sizes) < 32 or settings.max_size < max(settings.sizes):
        raise BadRecipe(f"sizes: from 32 pixels up to max_size {settings.max_size}, not {list(settings.sizes)}")
    if any(later <= earlier for earlier, later in zip(settings.decay_at, settings.decay_at[1:], strict=False)):
        if "decay_at" in given:
            raise BadRecipe(f"decay_at: must rise, not {list(settings.decay_at)}")
        settings = settings.model_copy(update={"decay_at": tuple(sorted(set(settings.decay_at)))})
    return settings


def lr_factor(step: int, settings: DetectionSettings) -> float:
    """Factor of the peak learning rate at a step, which counts from 0."""
    warmup = settings.warmup_steps
    rise = 1e-3 + (1 - 1e-3) * step / warmup if step < warmup else 1.0
    return rise * 0.1 ** sum(step >= at for at in settings.decay_at)


SHARE = 0.25  # of the boxes
FACTOR = 2.0  # anchors reach boxes of half to twice their side: IoU with them falls to 1/4 there


def size_notes(annotated: AnnotatedSet, settings: DetectionSettings) -> list[str]:
    """A note where many boxes, at the size at which is measured, lie beyond the reach of the anchors."""
    sides, size = [], settings.sizes[-1]
    for image in annotated.images:
        scale = min(size / min(image.width, image.height), settings.max_size / max(image.width, image.height))
        boxes = [instance.box for instance in image.instances if not instance.ignore]
        sides += [scale * math.sqrt((x2 - x1) * (y2 - y1)) for x1, y1, x2, y2 in boxes]
    least, most = min(settings.anchor_sizes) / FACTOR, max(settings.anchor_sizes) * FACTOR
    small, large = sum(side < least for side in sides), sum(side > most for side in sides)
    notes = []
    if small > SHARE * len(sides):
        notes.append(
            f"{small} of {len(sides)} boxes are under {least:g} pixels once images are resized to {size}. "
            "Small objects need a larger --set sizes=[...] or smaller anchor_sizes"
        )
    if large > SHARE * len(sides):
        notes.append(
            f"{large} of {len(sides)} boxes are over {most:g} pixels once images are resized to {size}. "
            "Raise --set anchor_sizes=[...]"
        )
    return notes
