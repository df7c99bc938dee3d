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


def test_a_damaged_image_is_named_by_its_place() -> None:
    whole = as_png(TinySource().image(0))
    batches = [[whole], [whole, whole[:-30]]]
    with pytest.raises(BadData, match=r"^image 1 of batch 1 is unreadable: "):
        list(disco_zoo.embed_batches(batches, tiny_named()))
