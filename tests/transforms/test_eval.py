"""Normalisation: the same numbers in every layout, and no image of the caller's changes."""

from __future__ import annotations

import pytest
import torch

from disco_zoo.transforms.eval import normalize

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
