"""How images are stored, as a look at some of them tells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from disco_zoo.data.open_source import open_source
from disco_zoo.data.source_image import PIXELS_VARIABLE
from disco_zoo.errors import CannotRead


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # as the package itself does
def test_the_limit_of_pixels_holds_for_the_look_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slide of more pixels than Pillow reads, of 16 bits: what is white must be known before it is opened."""
    Image.fromarray(np.full((10, 10), 4000, np.uint16)).save(tmp_path / "slide.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    assert open_source(tmp_path).survey.unreadable == 1
    monkeypatch.setenv(PIXELS_VARIABLE, "100")
    source = open_source(tmp_path)
    assert (source.survey.unreadable, source.white()) == (0, {"I;16": 4095})
    assert np.asarray(source.image(0))[0, 0].tolist() == [round(4000 / 4095 * 255)] * 3
    monkeypatch.setenv(PIXELS_VARIABLE, "many")
    with pytest.raises(CannotRead, match="is no number of pixels"):
        open_source(tmp_path)
