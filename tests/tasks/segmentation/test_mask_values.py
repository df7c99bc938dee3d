"""What masks hold: palettes that agree, 255, and classes that no mask has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from disco_zoo.errors import BadData
from disco_zoo.tasks.segmentation.check import check_masks
from disco_zoo.tasks.segmentation.data import open_masked_pair

COLORS = [(0, 0, 0), (200, 0, 0), (0, 200, 0), (0, 0, 200)]


def folder(path: Path, masks: list[np.ndarray], palettes: list[list[tuple[int, ...]]] | None = None) -> str:
    for number, values in enumerate(masks):
        mask = Image.fromarray(values.astype(np.uint8))
        if palettes is not None:
            mask.putpalette([part for color in palettes[number] for part in color])
        for name, image in (("Images", Image.new("RGB", (8, 8), (number, 0, 0))), ("Masks", mask)):
            (path / name).mkdir(parents=True, exist_ok=True)
            image.save(path / name / f"{number}.png")
    return str(path)


def halves(first: int, second: int) -> np.ndarray:
    return np.repeat([[first] * 4 + [second] * 4], 8, axis=0)


def test_palettes_that_differ_are_refused(tmp_path: Path) -> None:
    masks = [halves(0, 1), halves(0, 2), halves(0, 1)] * 4
    train, _, _ = check_masks(*open_masked_pair(folder(tmp_path / "same", masks, [COLORS] * 12)))
    assert train.class_names == ("0", "1", "2")
    swapped = [COLORS[0], COLORS[2], COLORS[1], COLORS[3]]
    with pytest.raises(BadData, match=r"the palettes of .* differ: \d is the colour \(\d"):
        check_masks(*open_masked_pair(folder(tmp_path / "swapped", masks, [COLORS] * 6 + [swapped] * 6)))
    # What differs in numbers that no mask holds says nothing.
    unused = [*COLORS[:3], (1, 2, 3)]
    check_masks(*open_masked_pair(folder(tmp_path / "unused", masks, [COLORS] * 6 + [unused] * 6)))


def test_classes_that_no_mask_holds_are_named(tmp_path: Path) -> None:
    data = folder(tmp_path / "x", [halves(0, 3)] * 10)
    (tmp_path / "x" / "classes.txt").write_text("ground\ncat\ndog\ncow\n")
    _, _, notes = check_masks(*open_masked_pair(data))
    assert any(note.startswith("classes that no mask of") and note.endswith("holds: cat, dog") for note in notes)


def test_255_is_counted_and_masks_of_it_alone_are_named(tmp_path: Path) -> None:
    data = folder(tmp_path / "x", [halves(0, 1)] * 6 + [halves(0, 255)] * 4)
    _, _, notes = check_masks(*open_masked_pair(data))
    assert "255 is ignored: 20 % of the pixels, in 4 masks" in notes
    assert any(note.startswith("masks of 0 and 255 alone: 4, first ") and "6.png" in note for note in notes)
    with pytest.raises(BadData, match="If 255 is your object, write it as 1"):
        check_masks(*open_masked_pair(folder(tmp_path / "y", [halves(0, 255)] * 6)))
