"""A stream as timm would give it."""

from __future__ import annotations

from typing import Any

from data_makers import (
    PIXELS,
)
from PIL import Image
from torch.utils.data import IterableDataset


class FakeStream(IterableDataset):  # type: ignore[type-arg]
    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Any:
        return iter([(Image.fromarray(PIXELS[0]), 1), (Image.new("L", (8, 8), 9), 0)])
