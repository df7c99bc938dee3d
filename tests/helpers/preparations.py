"""What a method may compute with before training, for tests."""

from __future__ import annotations

from pathlib import Path

from tiny import TinySource

from disco_zoo.data.dataset import ImageSource
from disco_zoo.teacher_cache.feature_bank import Preparation


def preparation(folder: Path, source: ImageSource | None = None) -> Preparation:
    return Preparation(source or TinySource(), folder, seed=3, device="cpu", workers=0)
