"""Text files that an editor began with a byte order mark are read as if it were not there."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from disco_zoo.config.recipe import load_recipe
from disco_zoo.data.image_list import open_images
from disco_zoo.zoo.catalog import CATALOG_PATH, load_catalog

MARK = b"\xef\xbb\xbf"


def test_a_list_of_images(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "list.txt").write_bytes(MARK + b"a.png\n")
    assert len(open_images([str(tmp_path / "list.txt")])) == 1


def test_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(MARK + b"extends: pocket/disco_effb0.disco_lite0_fmnist\nname: mine\n")
    assert load_recipe(str(path)).name == "mine"


def test_a_catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "catalog.yaml"
    path.write_bytes(MARK + CATALOG_PATH.read_bytes())
    monkeypatch.setenv("DISCO_ZOO_CATALOG", str(path))
    assert load_catalog().resolve("effb0").architecture == "disco_effb0"
