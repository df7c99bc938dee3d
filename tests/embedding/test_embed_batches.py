"""Rows for programs that hold the images: those of `extract_features`, one batch in memory, nothing left behind."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from embed_makers import tiny_named
from PIL import Image
from tiny import TinySource

import disco_zoo
from disco_zoo.errors import BadData

pytestmark = pytest.mark.usefixtures("one_thread")


def as_png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def test_rows_are_those_of_extract_features_from_bytes_and_from_images() -> None:
    named, source = tiny_named(), TinySource(12)
    expected = disco_zoo.extract_features(named, source, batch_size=3).features.numpy()
    images = [source.image(index) for index in range(12)]
    for given in (images, [as_png(image) for image in images]):
        rows = list(disco_zoo.embed_batches([given[first : first + 3] for first in range(0, 12, 3)], named))
        assert [row.shape for row in rows] == [(3, named.feature_dim)] * 4
        np.testing.assert_array_equal(np.concatenate(rows), expected)


def test_batches_are_taken_one_at_a_time_and_the_callers_gradients_stay() -> None:
    taken = 0

    def batches() -> Iterator[list[Image.Image]]:
        nonlocal taken
        for index in range(5):
            taken += 1
            yield [TinySource().image(index)]

    named = tiny_named()
    named.backbone.train()
    rows = disco_zoo.embed_batches(batches(), named)
    next(rows)
    assert taken == 1
    assert torch.is_grad_enabled()
    assert named.backbone.training


def test_deep_images_need_the_white_of_their_set() -> None:
    """Alone, an image of values up to 1000 would be four times as bright."""
    values = np.random.default_rng(0).integers(0, 1000, (20, 24)).astype(np.uint16)
    image, grey = Image.fromarray(values), Image.fromarray(np.rint(values * (255 / 4095)).astype(np.uint8))
    named = tiny_named()
    for given in (image, as_png(image)):
        with pytest.raises(BadData, match=r"^image 1 of batch 0 has more than 8 bits"):
            list(disco_zoo.embed_batches([[grey, given]], named))
        rows = next(disco_zoo.embed_batches([[given]], named, white={"I;16": 4095}))
        np.testing.assert_array_equal(rows, next(disco_zoo.embed_batches([[grey]], named)))
        alone = next(disco_zoo.embed_batches([[given]], named, white={}))
        assert np.abs(alone - rows).max() > 1e-3


def test_a_damaged_image_is_named_by_its_place() -> None:
    whole = as_png(TinySource().image(0))
    batches = [[whole], [whole, whole[:-30]]]
    with pytest.raises(BadData, match=r"^image 1 of batch 1 is unreadable: "):
        list(disco_zoo.embed_batches(batches, tiny_named()))
