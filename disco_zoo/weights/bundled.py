"""Weights that the wheel holds: where they are. Imports neither torch nor timm, see `models.registration`."""

from __future__ import annotations

from pathlib import Path

from disco_zoo.core.files import PACKAGE_DIR

BUNDLED_FOLDER = PACKAGE_DIR / "assets" / "weights"


def bundled_path(file: str) -> Path:
    """Where the wheel keeps the weights file `file`."""
    return BUNDLED_FOLDER / file
