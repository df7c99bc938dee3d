"""The picture of the zoo: what is drawn, and that it depends on the catalog alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from disco_zoo.catalog import load_catalog
from disco_zoo.cli import main
from disco_zoo.errors import BadData
from disco_zoo.zoo_picture import draw_zoo


def test_svg_names_every_panel_and_architecture_and_is_the_same_each_time(tmp_path: Path) -> None:
    catalog = load_catalog()
    for name in ("a.svg", "b.svg"):
        draw_zoo(catalog.matching(None), catalog, tmp_path / name)
    text = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert text == (tmp_path / "b.svg").read_text(encoding="utf-8")
    for words in (
        "CIFAR-10",
        "ImageNet-1k",
        "Eff-b0",
        "R-18",
        "DisCo",
        "SEED",
        "reported, unverified",
        "measured here",
    ):
        assert f">{words}<" in text
    assert "<dc:date>" not in text


def test_list_plots_what_its_filters_leave(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--method", "compress", "--plot", str(tmp_path / "zoo.png")]) == 0
    assert (tmp_path / "zoo.png").read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out == ""


def test_nothing_to_draw_is_told(tmp_path: Path) -> None:
    catalog = load_catalog()
    rows = [row for row in catalog.matching(None) if not row.reported and not row.measured]
    assert rows
    with pytest.raises(BadData, match="linear figure"):
        draw_zoo(rows, catalog, tmp_path / "zoo.png")
