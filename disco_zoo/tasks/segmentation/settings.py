"""Settings of a segmentation head."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from disco_zoo.core.schema import Section
from disco_zoo.errors import BadRecipe
from disco_zoo.tasks.run_settings import changed, preset_named


class SegmentationSettings(Section):
    """Sizes in pixels.

    `image_size`: shorter side while measuring, and of the training crops. `scales`: training images are resized to
    between these times `image_size` before the crop. `maps`: "last" takes the backbone's last map alone, "all" those of
    strides 4 to 32, brought to the finest of `stride` or coarser. The learning rate falls along half a cosine.
    """

    maps: Literal["last", "all"] = "last"
    stride: Literal[4, 8, 16, 32] = 8
    image_size: int = Field(default=512, ge=32)
    scales: tuple[float, float] = (0.5, 2.0)
    batch_size: int = Field(default=16, ge=1)
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    steps: int = Field(default=20_000, ge=1)
    checkpoint_every: int = Field(default=500, ge=1)


PRESETS = {
    "fast": SegmentationSettings(
        image_size=256, scales=(0.75, 1.5), batch_size=8, lr=1e-2, steps=500, checkpoint_every=100
    ),
    "linear": SegmentationSettings(),
}


def segmentation_settings(preset: str, overrides: Iterable[str] = ()) -> SegmentationSettings:
    """A preset with changes.

    Raises:
        UnknownName: no such preset.
        BadRecipe: unknown keys or unfit values.
    """
    settings, _ = changed(preset_named(PRESETS, preset), overrides)
    low, high = settings.scales
    if not 0.1 <= low <= high <= 10:
        raise BadRecipe(f"scales: two rising numbers from 0.1 to 10, not {[low, high]}")
    return settings
