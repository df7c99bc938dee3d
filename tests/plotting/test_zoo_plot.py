"""The picture of the zoo: what is drawn, and that it depends on the catalog alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from disco_zoo.cli import main
from disco_zoo.errors import BadData
from disco_zoo.plotting.zoo_plot import draw_zoo, fingerprint
from disco_zoo.zoo.catalog import load_catalog


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


def test_marks_are_the_same_whatever_is_drawn_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.axes import Axes

    seen: dict[tuple[float, float], set[tuple[str, str]]] = {}
    real = Axes.plot

    def spy(self, x, y, **style):
        if "markeredgecolor" in style:
            seen.setdefault((x[0], y[0]), set()).add((style["marker"], style["markeredgecolor"]))
        return real(self, x, y, **style)

    monkeypatch.setattr(Axes, "plot", spy)
    catalog = load_catalog()
    draw_zoo(catalog.matching(None), catalog, tmp_path / "all.png")
    alone = catalog.matching(None, method="seed")
    assert draw_zoo(alone, catalog, tmp_path / "some.png") == sum(
        any(figure.metric == "linear_top1" for figure in row.reported) for row in alone
    )
    assert len(seen) > 10
    assert all(len(looks) == 1 for looks in seen.values())


def test_legend_names_only_what_is_drawn_and_lies_in_the_picture(tmp_path: Path, monkeypatch) -> None:
    from matplotlib.figure import Figure

    figures = []
    real = Figure.__init__
    monkeypatch.setattr(
        Figure, "__init__", lambda self, *args, **named: (real(self, *args, **named), figures.append(self))[0]
    )
    catalog = load_catalog()
    for filters in ({}, {"method": "compress"}, {"data": "fmnist_sample"}):
        draw_zoo(catalog.matching(None, **filters), catalog, tmp_path / "zoo.png")
        figure = figures[-1]
        figure.canvas.draw()
        box = figure.legends[0].get_window_extent()
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1
        assert all(axis.get_window_extent().x1 < box.x0 for axis in figure.axes)
    words = [text.get_text() for text in figures[1].legends[0].get_texts()]
    assert "CompRess" in words
    assert "SEED" not in words
    assert "measured here" not in words


@pytest.mark.parametrize(("name", "words"), [("zoo.jpg", "must end in .png"), ("folder.png", "is a folder")])
def test_a_picture_that_cannot_be_written_is_one_line(name: str, words: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "folder.png").mkdir()
    assert main(["list", "--plot", str(tmp_path / name)]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_the_picture_of_the_readme_is_of_this_catalog() -> None:
    catalog = load_catalog()
    with Image.open(Path(__file__).parents[2] / "docs" / "zoo.png") as picture:
        written = picture.info["Description"]
    drawn = [
        row
        for row in catalog.matching(None)
        if row.figure("student", "linear_top1") or any(figure.metric == "linear_top1" for figure in row.reported)
    ]
    assert written == fingerprint(drawn, catalog), "stale; type: disco-zoo list --plot docs/zoo.png"
    assert written != fingerprint(drawn[:-1], catalog)
