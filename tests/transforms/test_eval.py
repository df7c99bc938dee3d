"""The evaluation transform: normalisation in every layout, and large JPEGs decoded at reduced size."""

from __future__ import annotations

import pytest
import torch
from photo_makers import PHOTOS, jpeg, photo
from PIL import Image

from disco_zoo.data.source_image import SourceImage
from disco_zoo.transforms.eval import embed_transform, eval_transform, normalize

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize("layout", [None, torch.channels_last, torch.contiguous_format])
def test_normalised_pixels_are_the_closed_form_in_every_layout(layout: torch.memory_format | None) -> None:
    pixels = torch.arange(256, dtype=torch.uint8).repeat(3).view(1, 3, 16, 16)
    expected = torch.stack([(torch.arange(256) / 255 - m) / s for m, s in zip(MEAN, STD, strict=True)]).view(
        1, 3, 16, 16
    )
    found = normalize(pixels, MEAN, STD, layout=layout)
    assert torch.equal(found, expected)
    assert found.is_contiguous(memory_format=layout or torch.channels_last)


def test_floats_of_the_caller_stay_as_they_are() -> None:
    pixels = torch.full((1, 3, 2, 2), 51.0).contiguous(memory_format=torch.channels_last)
    normalised = normalize(pixels, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert torch.equal(pixels, torch.full((1, 3, 2, 2), 51.0))
    assert normalised.unique().item() == pytest.approx(0.2)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("size", [(1501, 1153), (1153, 1501)])
def test_a_large_jpeg_is_reduced_on_the_same_grid_whichever_way_up(size: tuple[int, int], orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    encoded = jpeg(photo(4, *size), exif=exif)
    reduced = embed_transform(96, 104, full_decode=False)(SourceImage(encoded)).float()
    whole = embed_transform(96, 104, full_decode=True)(SourceImage(encoded)).float()
    assert (reduced - whole).abs().mean() < 0.7
    assert (reduced - torch.roll(whole, 1, dims=2)).abs().mean() > 10  # what a shift by a pixel would make


def test_an_image_is_decoded_whole_where_a_reduced_one_would_be_within_the_margin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoded: list[int] = []
    real = SourceImage._decode
    monkeypatch.setattr(SourceImage, "_decode", lambda self, factor: (decoded.append(factor), real(self, factor))[1])
    for shorter in (539, 540, 1080, 2160):  # 2, 4 and 8 times 100 x 2.7
        encoded = jpeg(Image.new("RGB", (shorter, shorter + 60)))
        assert embed_transform(90, 100, full_decode=False)(SourceImage(encoded)).shape == (3, 90, 90)
    embed_transform(90, 100, full_decode=True)(SourceImage(encoded))
    embed_transform(90, 100, full_decode=False)(SourceImage(Image.new("RGB", (1080, 1080))))
    assert decoded == [1, 2, 4, 8, 1, 1]


def test_an_image_that_is_not_reduced_has_the_pixels_of_measuring() -> None:
    encoded = jpeg(PHOTOS[0])
    expected = eval_transform(224, 256)(SourceImage(encoded).rgb())
    assert torch.equal(embed_transform(224, 256, full_decode=False)(SourceImage(encoded)), expected)
