"""Odd colour modes, orientation, and images that cannot be read."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_makers import (
    PIXELS,
    make_parquet,
    png,
)
from PIL import Image

from disco_zoo.data.dataset import ImageSource
from disco_zoo.data.open_source import open_source
from disco_zoo.data.source_image import to_rgb
from disco_zoo.data.unreadable import UnreadableTally, load_or_replace
from disco_zoo.errors import BadData, UnreadableImage


def color_at_center(image: Image.Image) -> tuple[int, ...]:
    return tuple(int(value) for value in np.asarray(to_rgb(image))[4, 4])


def test_colour_modes_become_rgb() -> None:
    size = (8, 8)
    assert color_at_center(Image.new("L", size, 77)) == (77, 77, 77)
    assert color_at_center(Image.new("1", size, 1)) == (255, 255, 255)
    assert color_at_center(Image.new("CMYK", size, (0, 255, 255, 0))) == (255, 0, 0)
    # Half-transparent black over white is mid-grey; fully transparent black is white.
    assert color_at_center(Image.new("RGBA", size, (0, 0, 0, 127))) == (128, 128, 128)
    assert color_at_center(Image.new("RGBA", size, (0, 0, 0, 0))) == (255, 255, 255)
    assert color_at_center(Image.new("LA", size, (10, 255))) == (10, 10, 10)
    # 16-bit grey: the high byte, not Pillow's clipping to white.
    assert color_at_center(Image.fromarray(np.full(size, 0x4D12, np.uint16))) == (0x4D, 0x4D, 0x4D)
    palette = Image.new("P", size, 1)
    palette.putpalette([0, 0, 0, 12, 34, 56])
    assert color_at_center(palette) == (12, 34, 56)


@pytest.mark.parametrize(
    ("mode", "kind", "settings"),
    [
        ("P", "PNG", {"transparency": b"\x00\xff"}),
        ("P", "GIF", {"transparency": 0}),
        ("CMYK", "JPEG", {}),
        ("L", "JPEG", {}),
        ("LA", "PNG", {}),
        ("RGBA", "PNG", {}),
        ("I;16", "PNG", {}),
        ("RGB", "PNG", {"transparency": (0, 0, 0)}),
    ],
)
def test_odd_files_are_read_without_a_warning(tmp_path: Path, mode: str, kind: str, settings: dict[str, Any]) -> None:
    Image.new(mode, (8, 8)).save(tmp_path / "a.png", kind, **settings)
    image = open_source(tmp_path).image(0)
    assert (image.mode, image.size) == ("RGB", (8, 8))
    if "transparency" in settings:
        assert color_at_center(image) == (255, 255, 255)


def test_photos_are_turned_upright(tmp_path: Path) -> None:
    image = Image.fromarray(PIXELS[0][:4])
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn right by 90 degrees to show"
    image.save(tmp_path / "a.png", exif=exif)
    assert open_source(tmp_path).image(0).size == image.size[::-1] == (4, 8)


# --- unreadable images


def damaged_parquet(tmp_path: Path) -> ImageSource:
    """Rows 2 (cut short), 3 (text) and 5 (empty cell) are unreadable."""
    cells: list[Any] = [png(i) for i in range(6)]
    cells[2], cells[3], cells[5] = cells[2][:60], b"no image", None
    return open_source(make_parquet(tmp_path / "bad.parquet", images=cells))


def test_unreadable_image_says_which_and_why(tmp_path: Path) -> None:
    source = damaged_parquet(tmp_path)
    for index, reason in ((2, "truncated"), (3, "not an image"), (5, "the cell is empty")):
        with pytest.raises(UnreadableImage, match=reason) as caught:
            source.image(index)
        error = pickle.loads(pickle.dumps(caught.value))  # as a worker sends it
        assert (error.index, error.path) == (index, f"bad.parquet row {index}")
        assert str(error) == str(caught.value)
        assert "\n" not in str(error)
        assert "0x" not in str(error)


def test_replacement_is_the_next_readable(tmp_path: Path) -> None:
    source = damaged_parquet(tmp_path)
    used = []
    for index in range(6):
        image, index_used, error = load_or_replace(source, index)
        assert image.tobytes() == PIXELS[index_used].tobytes()
        assert (error is None) == (index == index_used)
        assert error is None or error.index == index
        used.append(index_used)
    assert used == [0, 1, 4, 4, 4, 0]


def test_nothing_readable_stops(tmp_path: Path) -> None:
    source = open_source(make_parquet(tmp_path / "bad.parquet", images=[b"x"] * 6))
    with pytest.raises(BadData, match="6 images in a row are unreadable"):
        load_or_replace(source, 3)


def test_tally_counts_each_once_and_stops_above_the_limit(tmp_path: Path) -> None:
    tally = UnreadableTally(limit=2)
    assert tally.add(7, "image 7 is unreadable")
    assert not tally.add(7, "image 7 is unreadable")
    tally.add(3, "image 3 is unreadable")
    tally.check(tmp_path / "list.txt")
    assert not (tmp_path / "list.txt").exists()
    tally.add(5, "image 5 is unreadable")
    with pytest.raises(BadData, match=r"3 images are unreadable, 2 are tolerated.*list\.txt"):
        tally.check(tmp_path / "list.txt")
    assert [line.split()[1] for line in (tmp_path / "list.txt").read_text().splitlines()] == ["3", "5", "7"]
